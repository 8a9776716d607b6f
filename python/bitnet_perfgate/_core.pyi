"""The Rust core. Documents cross as JSON text; `bitnet_perfgate` is the face of it."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FileError",
    "InputError",
    "TrialJudge",
    "__version__",
    "accept_baseline",
    "build_library",
    "comparison_blocks",
    "decode_floats",
    "dequantize_weights",
    "doctor",
    "find_baselines",
    "generate",
    "identify",
    "import_results",
    "judge",
    "judge_imported",
    "layout",
    "linear_f32_f32",
    "list_baselines",
    "load_recording",
    "load_verdict",
    "make_model",
    "mapped_model_info",
    "matmul_i8_i32",
    "mismatches",
    "model_info",
    "pack",
    "packed_scale",
    "plan",
    "quantize_activations",
    "quantize_weights",
    "recording_of",
    "report_junit",
    "report_markdown",
    "report_sections",
    "run",
    "save_recording",
    "selftest",
    "speed_table",
    "time_breakdown",
    "time_builds",
    "trace",
    "unpack",
    "worker",
    "workloads",
]

__version__: str

class InputError(ValueError):
    """An argument, a file's content or a combination of options cannot be used."""

class FileError(OSError):
    """A file cannot be opened, read or written."""

@final
class TrialJudge:
    def __new__(
        cls,
        margin: float,
        strict: bool = False,
        calibration: str | None = None,
        calibration_name: str = "calibration",
    ) -> TrialJudge: ...
    def judge(self, trial: str, name: str) -> str: ...

def layout(
    format: str, shape: tuple[int, int], tile: tuple[int, int, int] | None = None
) -> tuple[int, int, tuple[int, int, int] | None]: ...
def packed_scale(weights: Any) -> float: ...
def quantize_weights(
    weights: NDArray[np.float32],
    packed: NDArray[np.uint8],
    format: str,
    rule: str,
    tile: tuple[int, int, int] | None,
    backend: str | None,
) -> None: ...
def dequantize_weights(weights: Any, out: NDArray[np.float32], backend: str | None) -> None: ...
def pack(
    codes: NDArray[np.int8],
    packed: NDArray[np.uint8],
    format: str,
    scale: float,
    tile: tuple[int, int, int] | None,
) -> None: ...
def unpack(weights: Any, out: NDArray[np.int8]) -> None: ...
def quantize_activations(
    x: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    sums: NDArray[np.int32],
    backend: str | None,
) -> None: ...
def matmul_i8_i32(
    weights: Any, x: NDArray[np.int8], out: NDArray[np.int32], backend: str | None, threads: int
) -> None: ...
def linear_f32_f32(
    weights: Any, x: NDArray[np.float32], out: NDArray[np.float32], backend: str | None, threads: int
) -> None: ...
def decode_floats(stored: NDArray[np.uint8], tensor_type: str, out: NDArray[np.float32]) -> None: ...
def plan(options: str, callables: Sequence[Any] = ...) -> str: ...
def run(
    options: str,
    progress: Callable[[int, int, float, str, str], object] | None = None,
    callables: Sequence[Any] = ...,
) -> tuple[str, str]: ...
def judge(recording: str, judgement: str = "{}") -> str: ...
def import_results(
    paths: Sequence[str | PathLike[str]], tool: str | None = None, saved: str = "new"
) -> str: ...
def judge_imported(earlier: str | PathLike[str], later: str | PathLike[str], judgement: str) -> str: ...
def selftest(
    options: str,
    budget_s: float,
    progress: Callable[[int, int, float, str, str], object] | None = None,
) -> str: ...
def worker(find: Callable[[str, str], Any]) -> int: ...
def accept_baseline(
    root: str | PathLike[str], recording: str, who: str, why: str, platform: str | None = None
) -> Path: ...
def build_library(
    folder: str | PathLike[str],
    rev: str | None = None,
    progress: Callable[[int, int, float, str, str], object] | None = None,
) -> tuple[Path, str, bool]: ...
def time_builds(
    folder: str | PathLike[str],
    repeats: int,
    release: bool = False,
    progress: Callable[[int, int, float, str, str], object] | None = None,
) -> str: ...
def list_baselines(root: str | PathLike[str]) -> str: ...
def find_baselines(root: str | PathLike[str], plan: str, most: int) -> tuple[str, list[Path]]: ...
def mismatches(earlier: str, later: str) -> str: ...
def speed_table(recording: str, verdict: str) -> str: ...
def save_recording(path: str | PathLike[str], recording: str) -> None: ...
def load_recording(path: str | PathLike[str]) -> str: ...
def load_verdict(path: str | PathLike[str], recording: str) -> str: ...
def recording_of(path: str | PathLike[str]) -> str | None: ...
def report_sections(recording: str, verdict: str) -> str: ...
def report_markdown(recording: str, verdict: str) -> str: ...
def report_junit(recording: str, verdict: str) -> str: ...
def comparison_blocks(recording: str, verdict: str) -> str: ...
def doctor(plugins: Sequence[str | PathLike[str]] = ..., ceilings: bool = False) -> str: ...
def workloads(profile: str) -> str: ...
def identify(
    path: str | PathLike[str], tensor: str | None = None, shape: tuple[int, int] | None = None
) -> str: ...
def make_model(
    path: str | PathLike[str],
    preset: str,
    format: str,
    seed: int,
    progress: Callable[[int, int], object] | None = None,
) -> str: ...
def model_info(path: str | PathLike[str]) -> str: ...
def mapped_model_info(path: str | PathLike[str], file: NDArray[np.uint8]) -> str: ...
def generate(
    path: str | PathLike[str],
    prompt: Sequence[int],
    n: int,
    backend: str | None,
    run: tuple[str, str, int],
    plugins: Sequence[str | PathLike[str]],
    progress: Callable[[int, int], object] | None = None,
) -> str: ...
def trace(
    path: str | PathLike[str],
    tokens: Sequence[int],
    subject: str | None,
    reference: str | None,
    step: bool,
    bound: float,
    run: tuple[str, str, int],
    plugins: Sequence[str | PathLike[str]],
    subject_path: str | PathLike[str] | None = None,
) -> str: ...
def time_breakdown(
    path: str | PathLike[str],
    work: tuple[int, int, int],
    backend: str | None,
    run: tuple[str, str, int],
    plugins: Sequence[str | PathLike[str]],
) -> str: ...
