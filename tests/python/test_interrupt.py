"""Ctrl-C: what was measured until then is saved, said and readable. No assertion is about time."""

import signal
import subprocess
from pathlib import Path

import bitnet_perfgate as gate
from conftest import command, environment


def interrupted_after(folder: Path, word: str, *arguments: str) -> tuple[int, str, str]:
    """Runs a command, sends SIGINT once stderr holds ``word``; returns its code, stdout, stderr."""
    with subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(COLUMNS="80"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        seen = ""
        for line in process.stderr:
            seen += line
            if word in line:
                process.send_signal(signal.SIGINT)
                break
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, seen + stderr


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    # The line about the second workload appears when the first one is finished.
    code, stdout, stderr = interrupted_after(tmp_path, "[2/", "run", "-v", "--output", "i.recording.json")
    assert code == 130, stderr
    assert "interrupted: what was measured until then is in i.recording.json" in stderr
    assert "Traceback" not in stderr
    assert "INCOMPLETE (interrupted)" in stdout
    assert stdout.splitlines()[0] == "No regression was judged: there is no baseline."
    result = gate.load_recording(tmp_path / "i.recording.json")
    assert result.recording.incomplete == "interrupted"
    assert result.verdict.verdict != "pass"
    measured = {series["workload"] for series in result.recording["series"]}
    planned = result.recording.workload_ids
    assert planned[0] in measured
    assert len(measured) < len(planned)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.recording.json", "i.verdict.json"]


def test_an_interrupted_crossval_is_marked_too(tmp_path: Path) -> None:
    code, _, stderr = interrupted_after(tmp_path, "[3/", "crossval", "-v", "--full", "--output", "i.json")
    assert code == 130, stderr
    result = gate.load_recording(tmp_path / "i.json")
    assert result.recording.incomplete == "interrupted"
    assert result.recording.agreements


def test_the_second_interruption_does_not_wait(tmp_path: Path) -> None:
    # One call of the plain loops takes seconds here; the first signal is answered before it ends.
    workload = "matmul/i2_s/6912x2560/b512/t1/hot"
    with subprocess.Popen(
        command("run", "-v", "--workload", workload, "--output", "i.json"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert "can confirm here" in process.stderr.readline()
        assert process.stderr.readline().startswith("[1/")
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("interrupted: finishing the current step")
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_model_leaves_no_file(tmp_path: Path) -> None:
    code, _, stderr = interrupted_after(
        tmp_path, " MB", "model", "make", "big.gguf", "--preset", "2b4t", "--format", "i2_s"
    )
    assert code == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []
