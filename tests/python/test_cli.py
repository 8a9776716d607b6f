"""The command line as a user meets it: a process, its two streams and its exit code."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import bitnet_perfgate as gate
from bitnet_perfgate.cli import app
from conftest import (
    DECODE,
    DEQUANTIZE,
    PRODUCT,
    REPOSITORY,
    TINY_MODEL,
    Cli,
    assert_refused,
    command,
    environment,
)

SMALL = ("--workload", DEQUANTIZE, "--workload", PRODUCT, "--workload", DECODE)
EXIT_CODES = {"pass": 0, "fail": 1, "neutral": 3}
ESCAPE = "\x1b["


def test_run_says_everything_and_ends_with_the_verdict(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", *SMALL, COLUMNS="80")
    lines = done.stdout.splitlines()
    assert lines[0] == "No regression was judged: there is no baseline."
    for part in (
        "Speed of ",
        "Agreement",
        "Accuracy",
        "Rules",
        "Skipped",
        "Next",
        "Saved ",
        DEQUANTIZE,
        PRODUCT,
    ):
        assert part in done.stdout, part
    assert max(len(line) for line in lines) <= 80, done.stdout
    assert ESCAPE not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    # What was shown is what was saved, under the default name.
    (recording,) = (tmp_path / "benchmark-results").glob("*.recording.json")
    (verdict_file,) = (tmp_path / "benchmark-results").glob("*.verdict.json")
    verdict = json.loads(verdict_file.read_text())
    assert verdict["recording"] == recording.name
    assert verdict["commands"][0].startswith("python -m bitnet_perfgate run --workload ")
    assert done.returncode == EXIT_CODES[verdict["verdict"]]
    last = done.stdout[done.stdout.rindex("\n\n") :]
    flat = " ".join(last.split())
    assert flat == f"{verdict['verdict'].upper()} evidence: {' '.join(verdict['evidence'].split())}"
    assert gate.load_recording(recording).verdict.verdict == verdict["verdict"]


def test_in_a_pipe_the_verdict_is_one_line(cli: Cli) -> None:
    done = cli("crossval", *SMALL)
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"PASS evidence: method: .*; result: .*; reason: .*", last)
    assert done.stdout.startswith("Agreement and accuracy only: nothing was timed.")


def test_crossval_passes_where_everything_agrees(cli: Cli, small_crossval: gate.Result) -> None:
    done = cli("crossval", *SMALL, "-q", "--output", "c.recording.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"PASS evidence: {small_crossval.verdict.evidence}"]


def test_json_is_one_document_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", *SMALL, "--format", "json", "--output", "r.recording.json")
    verdict = json.loads(done.stdout)
    assert verdict["schema"] == "bitnet-perfgate/verdict/1"
    assert verdict == json.loads((tmp_path / "r.verdict.json").read_text())
    assert done.returncode == EXIT_CODES[verdict["verdict"]]
    for arguments in (("list",), ("doctor",), ("run", "--dry-run"), ("crossval", "--dry-run", "--full")):
        done = cli(*arguments, "--format", "json")
        assert done.returncode == 0
        assert isinstance(json.loads(done.stdout), dict)


def test_neutral_and_its_exit_code(cli: Cli) -> None:
    neutral = ("crossval", "--workload", PRODUCT, "-q", "--output", "n.json")
    assert cli(*neutral).returncode == 3
    done = cli(*neutral, "--neutral-exit", "0")
    assert done.returncode == 0
    # The exit code changes, the verdict does not.
    assert done.stdout.startswith("NEUTRAL ")
    # A pass is no neutral.
    assert cli("crossval", *SMALL, "-q", "--neutral-exit", "7").returncode == 0


def test_without_the_reference_the_verdict_is_neutral(cli: Cli) -> None:
    done = cli("run", *SMALL, "--skip-cpp", "-q")
    assert done.returncode == 3
    assert "C++ skipped by request" in done.stdout


def test_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "--dry-run", COLUMNS="80")
    assert done.returncode == 0
    assert all(workload in done.stdout for workload in gate.plan().workload_ids)
    assert "nothing was measured" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_list_and_doctor_show_what_the_functions_return(cli: Cli) -> None:
    listed = cli("list", "--profile", "full", COLUMNS="200")
    workloads = gate.workloads("full")
    assert listed.returncode == 0
    for row in (*workloads["workloads"], *workloads["unsupported"]):
        assert row["id"] in listed.stdout
    shown = cli("doctor", COLUMNS="200", BITNET_SEED="7", BITNET_DETERMINISTIC="1", BITNET_CPP_DIR="/nowhere")
    assert shown.returncode == 0
    doctor = gate.doctor()
    for row in doctor["backends"]:
        assert row["name"] in shown.stdout
    for row in doctor["not_in_this_version"]:
        assert row["reason"] in shown.stdout
    assert "BITNET_DETERMINISTIC: 1: accepted" in shown.stdout
    assert "BITNET_CPP_DIR: /nowhere: not used" in shown.stdout


def test_the_environment_has_a_say_in_the_seed(cli: Cli) -> None:
    def seed(*arguments: str, **env: str) -> int:
        found: int = json.loads(cli("run", "--dry-run", "--format", "json", *arguments, **env).stdout)[
            "plan"
        ]["seed"]
        return found

    assert seed() == seed(BITNET_SEED="") == 42
    assert seed(BITNET_SEED="7") == 7
    assert seed("--seed", "8", BITNET_SEED="7") == 8
    assert_refused(cli("run", "--dry-run", BITNET_SEED="seven"), "--seed")


def test_a_reference_folder_is_said_to_be_unused(cli: Cli) -> None:
    done = cli("crossval", *SMALL, BITNET_CPP_DIR="/nowhere")
    assert "note: BITNET_CPP_DIR is not used" in done.stderr
    assert "BITNET_CPP_DIR" not in cli("crossval", *SMALL, BITNET_CPP_DIR="").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("run", "crossval", "list", "doctor", "identify", "model")),
        (("gait",), ("'gait'", "run, crossval")),
        (("model",), ("make",)),
        (("model", "mak"), ("make",)),
        (("run", "--nonsense"), ("--nonsense",)),
        (("run", "--workload", "matmul/i2s/640x2560/b1/t1/hot"), (f'did you mean "{PRODUCT}"',)),
        (("run", "--dry-run", "--workload", "matmul/i2s/640x2560/b1/t1/hot"), (PRODUCT,)),
        (("run", "--category", "kernel"), ("quantization, kernels, mixed_precision",)),
        (("run", "--backend", "rust-avx3"), ("rust-avx3", "rust-scalar")),
        (("run", "--profile", "slow"), ("slow", "quick", "full")),
        (("run", "--format", "xml"), ("xml", "human", "json")),
        (("run", "--iterations", "0"), ("--iterations",)),
        (("run", "--warmup", "0"), ("--warmup",)),
        (("run", "--seed", "-1"), ("--seed",)),
        (("run", "--neutral-exit", "999"), ("--neutral-exit",)),
        (("run", "--model", "none.gguf"), ("none.gguf",)),
        (("run", "--plugin", "none.so"), ("none.so",)),
        (("identify",), ("FILE",)),
    ],
)
def test_wrong_usage_is_one_line(cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(cli(*arguments), *words)


def test_unwritable_output_is_found_before_measuring(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for output in ("none/x.json", "folder", "/dev/null", "/dev/full", "/proc/x.json"):
        # Without the early check this would measure the whole quick profile first, and say so on stderr.
        assert_refused(cli("run", "--output", output), output, "cannot write")
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/full").is_char_device()
    (tmp_path / "x.verdict.json").mkdir()
    assert_refused(cli("run", "--output", "x.recording.json"), "x.verdict.json")
    (tmp_path / "benchmark-results").write_text("in the way")
    assert_refused(cli("run", *SMALL), "benchmark-results", "--output")


def test_help_and_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"bitnet_perfgate {gate.__version__}\n"
    for arguments in ((), ("run",), ("crossval",), ("list",), ("doctor",), ("identify",), ("model", "make")):
        done = cli(*arguments, "--help", LC_ALL="C", PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    assert "BITNET_GGUF" in cli("run", "--help", COLUMNS="120").stdout


def every_command(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, member in getattr(group, "commands", {}).items():
        yield from every_command(member, (*path, name))


@pytest.mark.parametrize("width", [80, 40])
def test_no_help_loses_a_word(width: int) -> None:
    root: Any = typer.main.get_command(app)
    paths = list(every_command(root))
    assert ("baseline", "record") in paths
    for path in paths:
        done = CliRunner().invoke(app, [*path, "--help"], terminal_width=width)
        assert done.exit_code == 0, path
        assert done.output.isascii(), path
        assert max(map(len, done.output.splitlines())) <= max(width, 50), path
        found = root
        for name in path:
            found = found.commands[name]
        options = {option for parameter in found.params for option in parameter.opts if option[0] == "-"}
        assert [option for option in options if option not in done.output] == [], path
        if width == 80:
            cut = [line for line in done.output.splitlines() if line.endswith("...")]
            assert [line for line in cut if not line.startswith("Usage")] == [], path


def test_a_reader_of_the_help_may_leave() -> None:
    line = f"{sys.executable} -m bitnet_perfgate run --help | head -1; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "env",
    [
        {"LANG": "C", "LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"TERM": "dumb"},
    ],
)
def test_any_locale_will_do(cli: Cli, env: dict[str, str]) -> None:
    for arguments in (("crossval", *SMALL), ("doctor",), ("list",)):
        done = cli(*arguments, **env)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        assert done.stderr.isascii()


@pytest.mark.parametrize("arguments", [("crossval", *SMALL), ("list", "--profile", "full"), ("doctor",)])
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "w") as stdout:
        done = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=120,
        )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


def on_a_terminal(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Runs a command whose three streams are a terminal; returns its exit code and everything it showed."""
    outer, inner = pty.openpty()
    with subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(**env), stdin=inner, stdout=inner, stderr=inner
    ) as process:
        os.close(inner)
        shown = b""
        while True:
            try:
                part = os.read(outer, 65536)
            except OSError:  # Linux: the other end is closed.
                break
            if not part:
                break
            shown += part
        os.close(outer)
        return process.wait(timeout=120), shown.decode()


def test_colour_belongs_to_terminals(tmp_path: Path) -> None:
    code, shown = on_a_terminal(tmp_path, "crossval", *SMALL, COLUMNS="80")
    assert code == 0
    assert f"{ESCAPE}32mPASS" in shown
    assert " left" in shown
    code, shown = on_a_terminal(tmp_path, "crossval", *SMALL, "-q", NO_COLOR="1", COLUMNS="80")
    assert code == 0
    assert ESCAPE not in shown
    code, shown = on_a_terminal(tmp_path, "crossval", *SMALL, NO_COLOR="1", COLUMNS="80")
    # The progress bar moves the cursor; nothing is coloured or bold.
    assert re.findall(r"\x1b\[[0-9;]*m", shown) == []


def test_every_width_is_survived(cli: Cli, tmp_path: Path) -> None:
    for columns in ("1", "40", "300", "0", "nonsense"):
        done = cli("doctor", COLUMNS=columns)
        assert (done.returncode, done.stderr) == (0, "")
        assert "cpp-portable" in done.stdout
    code = cli("run", *SMALL, "-v", "--output", "w.recording.json", COLUMNS="40")
    foretold, _, steps = code.stderr.partition("\n")
    assert "can confirm" in foretold
    assert steps.startswith("[1/"), code.stderr
    comparisons = json.loads((tmp_path / "w.verdict.json").read_text())["comparisons"]
    pairs = {(row["subject"], row["other"]) for row in comparisons}
    assert code.stdout.count("Speed of ") == len(pairs) >= 3


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("doctor",), ("--help",), ("--version",), ("crossval", *SMALL), ("run", "--dry-run")],
)
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_stdout_that_takes_nothing_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], redirection: str
) -> None:
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'exec "$@" {redirection}',
            "bash",
            *command(*arguments, *(["-q"] * (arguments[0] == "crossval"))),
        ],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_stderr_that_takes_nothing_is_no_verdict(tmp_path: Path, redirection: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {redirection}', "bash", *command("run", "--workload", "nothing")],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_progress_that_nobody_sees_stops_nothing(tmp_path: Path, redirection: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {redirection}', "bash", *command("crossval", *SMALL, "-v")],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1].startswith("PASS ")


def test_an_output_of_an_impossible_name_is_one_line(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("crossval", *SMALL, "--output", "n" * 300), "cannot write", "too long")
    assert list(tmp_path.iterdir()) == []


def test_results_never_replace_inputs(cli: Cli, tmp_path: Path) -> None:
    content = TINY_MODEL.read_bytes()
    model = tmp_path / "m.verdict.json"
    model.write_bytes(content)
    (tmp_path / "hard").hardlink_to(model)
    (tmp_path / "soft").symlink_to(model)
    (tmp_path / "folder").mkdir()
    outputs = ("m.verdict.json", "folder/../m.verdict.json", "hard", "soft", "m.recording.json", "m.json")
    for output in outputs:
        for job in ("run", "crossval"):
            done = cli(job, "--model", "m.verdict.json", "--output", output)
            assert_refused(done, "m.verdict.json", "will not write it", "--output")
            assert model.read_bytes() == content
    assert_refused(cli("crossval", "--output", "hard", BITNET_GGUF=str(model)), "will not write it")
    assert_refused(cli("crossval", *SMALL, "--plugin", model, "--output", "hard"), "will not write it")
    assert model.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "hard", "m.verdict.json", "soft"]


def test_what_is_named_twice_is_meant_once(cli: Cli) -> None:
    backends = ("--backend", "rust-scalar", "--backend", "cpp-portable", "--backend", "rust-scalar")
    done = cli("run", "--dry-run", "--format", "json", *SMALL, *SMALL, *backends)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert [workload["id"] for workload in plan["workloads"]] == [DEQUANTIZE, PRODUCT, DECODE]
    assert [backend["name"] for backend in plan["backends"]] == ["rust-scalar", "cpp-portable"]
    assert cli("crossval", *SMALL, *SMALL, "-q").returncode == 0


def test_a_model_and_workloads_exclude_each_other(cli: Cli) -> None:
    assert_refused(cli("run", *SMALL, BITNET_GGUF=str(TINY_MODEL)), "BITNET_GGUF", "--workload")
    refused = cli("run", *SMALL, "--model", TINY_MODEL)
    assert_refused(refused, "--model", "--workload")
    assert "BITNET_GGUF" not in refused.stderr


def test_a_model_path_that_is_no_text_is_refused_readably(cli: Cli) -> None:
    for option in ("--model", "--plugin"):
        refused = cli("run", option, Path(os.fsdecode(b"n\xffme.gguf")))
        assert_refused(refused, option.removeprefix("--"), "UTF-8", "me.gguf")
        assert "surrogate" not in refused.stderr


def test_list_shows_the_backends(cli: Cli) -> None:
    listed = cli("list")
    backends = gate.workloads()["backends"]
    assert [row["name"] for row in backends] == [row["name"] for row in gate.doctor()["backends"]]
    for row in backends:
        (line,) = [line for line in listed.stdout.splitlines() if line.strip().startswith(f"{row['name']}: ")]
        assert ("not available" in line) == (not row["available"])


def test_counts_are_english_and_the_ratio_is_called_paired(cli: Cli) -> None:
    done = cli("run", "--workload", DEQUANTIZE, "-v", COLUMNS="80")
    assert "quick profile, 1 workload, seed" in " ".join(done.stdout.split())
    assert "1 workloads" not in cli("run", "--workload", DEQUANTIZE, "--dry-run").stdout
    assert "paired ratio" in done.stdout
    assert "time ratio" not in done.stdout
    assert "Hodges-Lehmann" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_the_readme_builds_a_plugin_as_the_contract_says() -> None:
    """Rule 8 of the contract: no contraction; the example needs libm."""

    def compiler_lines(name: str) -> list[str]:
        return [line for line in (REPOSITORY / name).read_text().splitlines() if line.startswith("cc ")]

    assert compiler_lines("README.md") == compiler_lines("docs/FFI.md") != []
