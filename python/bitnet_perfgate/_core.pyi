"""The Rust core. Documents cross as JSON text; `bitnet_perfgate` is the face of it."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike

__all__ = [
    "FileError",
    "InputError",
    "TrialAnswers",
    "TrialJudge",
    "__version__",
    "doctor",
    "identify",
    "judge",
    "load_recording",
    "make_model",
    "plan",
    "run",
    "save_recording",
    "speed_table",
    "worker",
    "workloads",
]

__version__: str

class InputError(ValueError):
    """An argument, a file's content or a combination of options cannot be used."""

class FileError(OSError):
    """A file cannot be opened, read or written."""

def plan(options: str) -> str: ...
def run(
    options: str, progress: Callable[[int, int, float, str, str], object] | None = None
) -> tuple[str, str]: ...
def judge(recording: str, judgement: str = "{}") -> str: ...
def worker() -> int: ...
def speed_table(recording: str, verdict: str) -> str: ...
def save_recording(path: str | PathLike[str], recording: str) -> None: ...
def load_recording(path: str | PathLike[str]) -> str: ...
def doctor(plugins: Sequence[str | PathLike[str]] = ...) -> str: ...
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

class TrialJudge:
    """The rules and the earlier A/A trials by which trials are judged; answers are JSON text."""

    def __new__(
        cls,
        margin: float,
        strict: bool,
        calibration: str | None = None,
        calibration_path: str | PathLike[str] | None = None,
    ) -> TrialJudge: ...
    def judge_text(self, trial: str) -> str: ...
    def judge_file(self, path: str | PathLike[str]) -> str: ...
    def judge_lines(self, path: str | PathLike[str]) -> TrialAnswers: ...

class TrialAnswers(Iterator[str]):
    """One answer for each line of a file."""

    def __iter__(self) -> TrialAnswers: ...
    def __next__(self) -> str: ...
