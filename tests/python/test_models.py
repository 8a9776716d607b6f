"""Model files: made, recognised, run over, and hostile ones refused."""

import hashlib
import os
import socket
import stat
from pathlib import Path

import pytest

import bitnet_perfgate as gate
from conftest import TINY_MODEL, Cli, assert_refused


def test_the_golden_model_agrees_with_every_backend(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "--model", TINY_MODEL, "--output", "r.json", "-v", COLUMNS="80")
    recording = gate.load_recording(tmp_path / "r.json").recording
    # The golden vectors of this file come from bitnet.cpp: agreement is not a matter of speed.
    assert recording.agreements
    assert all(row["exact"] for row in recording.agreements), done.stdout
    of_tensors = [identifier for identifier in recording.workload_ids if "+tensor=" in identifier]
    tensors = {identifier.partition("+tensor=")[2] for identifier in of_tensors}
    assert tensors == {row["tensor"] for row in gate.identify(TINY_MODEL)["tensors"]}
    whole = {identifier.split("/")[1] for identifier in recording.workload_ids} - {
        "matmul",
        "linear",
        "dequantize",
    }
    assert whole == {"prefill", "decode"}
    digest = hashlib.sha256(TINY_MODEL.read_bytes()).hexdigest()[:8]
    assert all(identifier.startswith(f"file:{digest}/") for identifier in recording.workload_ids)
    assert done.returncode in (0, 1, 3), done.stderr
    assert "+tensor=blk.0.attn_q.weight" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_the_variable_names_the_default_model(cli: Cli) -> None:
    done = cli("run", "--dry-run", "--format", "json", BITNET_GGUF=str(TINY_MODEL))
    assert '"file:' in done.stdout
    assert '"file:' not in cli("run", "--dry-run", "--format", "json", BITNET_GGUF="").stdout


def test_identify_names_every_ternary_tensor(cli: Cli) -> None:
    tensors = gate.identify(TINY_MODEL)["tensors"]
    assert tensors
    for tensor in tensors:
        findings = {layout["layout"]: layout["finding"] for layout in tensor["layouts"]}
        assert findings["i2_s"] == "consistent"
        assert tensor["declared"] == "I2_S"
    name = tensors[0]["tensor"]
    assert [row["tensor"] for row in gate.identify(TINY_MODEL, tensor=name)["tensors"]] == [name]
    done = cli("identify", TINY_MODEL)
    assert done.returncode == 0
    assert all(tensor["tensor"] in done.stdout for tensor in tensors)


def test_raw_bytes_are_identified_by_their_shape(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "raw.bin").write_bytes(bytes([0b01_01_01_01]) * (256 * 128 // 4))
    done = cli("identify", "raw.bin", "--shape", "128x256")
    assert done.returncode == 0
    assert "128x256" in done.stdout
    assert_refused(cli("identify", "raw.bin", "--shape", "128"), "2560x6912")


def test_a_made_model_is_reproducible_and_runs(cli: Cli, tmp_path: Path) -> None:
    done = cli("model", "make", "a.gguf", "--preset", "tiny", "--format", "i2_s", "--seed", "7")
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "a.gguf").read_bytes()
    assert hashlib.sha256(made).hexdigest() in done.stdout
    again = gate.make_model(tmp_path / "b.gguf", "tiny", "i2_s", 7)
    other = gate.make_model(tmp_path / "c.gguf", "tiny", "i2_s", 8)
    assert again["sha256"] == hashlib.sha256(made).hexdigest() != other["sha256"]
    result = gate.crossval(model=tmp_path / "a.gguf")
    assert result.verdict["agreement"]["exact"] == result.verdict["agreement"]["n"] > 0


def test_a_format_that_cannot_hold_the_model_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert_refused(
        cli("model", "make", "x.gguf", "--preset", "3b", "--format", "i2_s"), "3200x8640", "K % 128"
    )
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_of_a_model_is_refused(tmp_path: Path) -> None:
    whole = TINY_MODEL.read_bytes()
    path = tmp_path / "cut.gguf"
    for length in (*range(64), 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(gate.InputError, match=r"cut\.gguf"):
            gate.run(model=path)


@pytest.mark.parametrize("command", [("run", "--model"), ("crossval", "--model"), ("identify",)])
def test_hostile_files_are_one_line(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("This is no model.\n" * 100)
    (tmp_path / "half").write_bytes(TINY_MODEL.read_bytes()[:200_000])
    (tmp_path / "folder").mkdir()
    for name in ("empty", "text", "half", "folder", "missing"):
        assert_refused(cli(*command, name), name)


def test_a_name_that_is_no_text_is_one_line(cli: Cli) -> None:
    assert_refused(cli("identify", Path(os.fsdecode(b"n\xffme\x1b[31m.gguf"))), "me")


def test_a_name_that_the_locale_lacks_is_spelled_out(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mod\u00e8le.gguf").write_bytes(TINY_MODEL.read_bytes())
    done = cli("identify", "mod\u00e8le.gguf", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mod\\xe8le.gguf")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_one_line(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(TINY_MODEL.read_bytes())
    path.chmod(0)
    assert_refused(cli("run", "--model", path), "secret.gguf", "ermission")
    path.chmod(stat.S_IRUSR)


def test_a_model_replaces_nothing_but_regular_files(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    for name in ("pipe", "to-pipe"):
        assert_refused(cli("model", "make", name), name, "not a regular file")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "to-pipe").is_symlink()
    # A link to a file is replaced itself.
    (tmp_path / "old").write_text("old")
    (tmp_path / "to-old").symlink_to("old")
    assert cli("model", "make", "to-old").returncode == 0
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "to-old").is_symlink()
    assert_refused(cli("model", "make", "n" * 300), "n" * 300)


def test_raw_bytes_are_read_within_bounds(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("pipe", "socket", "/dev/zero", "."):
        assert_refused(cli("identify", name, "--shape", "128x256"), name, "not a regular file")
    # Much larger than any layout of that shape, and than this machine's memory: never read.
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    done = cli("identify", "sparse", "--shape", "128x256", "-v")
    assert done.returncode == 0, done.stderr
    assert "impossible" in done.stdout
    assert_refused(cli("identify", "sparse", "--shape", "2000000x2199023"), "weights")


@pytest.mark.parametrize(
    "shape", ["99999999999999999999x1", "0x0", "0x128", "128x0", "4294967296x1", "9" * 5000 + "x1"]
)
def test_shapes_that_nothing_has_are_refused(cli: Cli, tmp_path: Path, shape: str) -> None:
    (tmp_path / "raw.bin").write_bytes(bytes(100))
    assert_refused(cli("identify", "raw.bin", "--shape", shape), "shape", "expected")
    if len(shape) < 100:
        rows, cols = map(int, shape.split("x"))
        with pytest.raises(gate.InputError, match="shape"):
            gate.identify(tmp_path / "raw.bin", shape=(rows, cols))


def test_names_in_a_file_reach_no_terminal(cli: Cli, tmp_path: Path) -> None:
    """A tensor, and the file itself, named with an escape sequence and a line end."""
    old = b"blk.0.attn_q.weight"
    new = b"blk.0\x1b[31m\nPASS\x07xxx"
    assert len(new) == len(old)
    whole = TINY_MODEL.read_bytes()
    assert whole.count(old) == 1
    hostile = tmp_path / "m\x1b[2J\nPASS.gguf"
    hostile.write_bytes(whole.replace(old, new))
    shown = [
        cli("identify", hostile.name),
        cli("identify", hostile.name, "-v"),
        cli("crossval", "--model", hostile.name, "-v", "--output", "o\x1b[31m.json"),
        cli("identify", hostile.name, "--tensor", "nobody\x1b[31m"),
        cli("run", "--model", "none\x1b[31m"),
    ]
    for done in shown:
        both = done.stdout + done.stderr
        assert "\x1b" not in both, both
        assert "\x07" not in both, both
        assert "\\x1b[" in both or "\\u{1b}[" in both, both
        # The one honest verdict line says more than that word.
        assert not any(
            line.strip().startswith("PASS") and "evidence" not in line for line in both.splitlines()
        ), both
