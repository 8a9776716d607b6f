"""The cross-validation and performance gate for 1.58-bit (BitNet) kernels.

Everything a command of ``python -m bitnet_perfgate`` does is one function here, with the same documents:

>>> import bitnet_perfgate as perfgate
>>> result = perfgate.run(workloads=["matmul/i2_s/640x2560/b1/t1/hot"])  # doctest: +SKIP
>>> result.verdict.verdict, result.verdict.evidence  # doctest: +SKIP

Rust plans, measures and judges; this package shows, saves and exits.
"""

from bitnet_perfgate._core import FileError, InputError, __version__
from bitnet_perfgate.arrays import (
    Activations,
    PackedWeights,
    Tile,
    dequantize,
    matmul,
    pack,
    quantize,
    quantize_activations,
    unpack,
)
from bitnet_perfgate.build_times import build_time
from bitnet_perfgate.callables import CallableBackend, backend
from bitnet_perfgate.documents import (
    Comparison,
    Document,
    Recording,
    Result,
    TableRow,
    TimeBreakdown,
    Trace,
    Verdict,
)
from bitnet_perfgate.gguf import Model
from bitnet_perfgate.imports import compare_imported, import_results
from bitnet_perfgate.machine import backends, doctor, workloads
from bitnet_perfgate.magics import load_ipython_extension
from bitnet_perfgate.models import generate, identify, make_model, model_info, time_breakdown, trace
from bitnet_perfgate.progress_bar import ProgressBar
from bitnet_perfgate.regression import (
    accept_baseline,
    compare,
    compare_libraries,
    diff_baselines,
    gate,
    list_baselines,
)
from bitnet_perfgate.reports import Report, load_verdict, report
from bitnet_perfgate.revisions import compare_revision
from bitnet_perfgate.runs import crossval, load_recording, plan, run
from bitnet_perfgate.selftest import selftest
from bitnet_perfgate.side_by_side import compare_callables
from bitnet_perfgate.sides import measure, parity
from bitnet_perfgate.trials import TrialVerdict, judge_trial, judge_trials

__all__ = [
    "Activations",
    "CallableBackend",
    "Comparison",
    "Document",
    "FileError",
    "InputError",
    "Model",
    "PackedWeights",
    "ProgressBar",
    "Recording",
    "Report",
    "Result",
    "TableRow",
    "Tile",
    "TimeBreakdown",
    "Trace",
    "TrialVerdict",
    "Verdict",
    "__version__",
    "accept_baseline",
    "backend",
    "backends",
    "build_time",
    "compare",
    "compare_callables",
    "compare_imported",
    "compare_libraries",
    "compare_revision",
    "crossval",
    "dequantize",
    "diff_baselines",
    "doctor",
    "gate",
    "generate",
    "identify",
    "import_results",
    "judge_trial",
    "judge_trials",
    "list_baselines",
    "load_ipython_extension",
    "load_recording",
    "load_verdict",
    "make_model",
    "matmul",
    "measure",
    "model_info",
    "pack",
    "parity",
    "plan",
    "quantize",
    "quantize_activations",
    "report",
    "run",
    "selftest",
    "time_breakdown",
    "trace",
    "unpack",
    "workloads",
]
