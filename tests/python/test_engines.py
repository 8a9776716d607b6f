"""Whole models: tokens, where engines part, what a file holds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet_perfgate as gate
from conftest import REPOSITORY, TINY_MODEL, Cli, assert_refused

LOGITS = np.load(REPOSITORY / "tests" / "golden" / "tiny_logits.npz")
PROMPT = [int(token) for token in LOGITS["prompt"]]
IDS = ",".join(map(str, PROMPT))


def test_the_first_token_is_the_one_that_bitnet_cpp_would_choose() -> None:
    found = gate.generate(TINY_MODEL, PROMPT, 4)
    assert found["tokens"][0] == int(LOGITS["batch"][-1].argmax())
    assert (len(found["tokens"]), found["decoded"]) == (4, 3)
    for other in ({"threads": 2}, {"backend": "rust-scalar"}, {"backend": "cpp-portable"}):
        assert gate.generate(TINY_MODEL, PROMPT, 4, **other)["tokens"] == found["tokens"], other


@pytest.mark.parametrize("step", [False, True])
def test_rust_and_cpp_do_not_part(step: bool) -> None:
    found = gate.trace(TINY_MODEL, PROMPT, step=step)
    assert not found["parted"]
    assert found["first"] is None
    names = [row["name"] for row in found["operations"]]
    assert names[0] == "inp_embd.GET_ROWS"
    assert {"Qcur-1.ROPE", "kqv_out-0.CONT", "ffn_sub_norm-1.MUL", "result_output.MUL_MAT"} <= set(names)
    assert found["not_shown"] == []
    assert all(row["values"] > 0 and row["differing"] == 0 for row in found["operations"])
    assert found["logits"]["tokens"] == found["logits"]["top1"] == len(PROMPT)


def spoiled(folder: Path, tensor: str) -> Path:
    """The golden model with one wrong code in the first row of a tensor."""
    path = folder / "spoiled.gguf"
    shutil.copyfile(TINY_MODEL, path)
    rows = {row["name"]: row for row in gate.model_info(TINY_MODEL)["tensors"]}
    data = bytearray(path.read_bytes())
    # Tensors stand behind one another in the order of the file, each padded to 32 bytes.
    sizes = [(-(-row["bytes"] // 32) * 32, name) for name, row in rows.items()]
    start = len(data) - sum(size for size, _ in sizes)
    for size, name in sizes:
        if name == tensor:
            break
        start += size
    # The two highest bits hold a code 0, 1 or 2: another of them.
    code = data[start] >> 6
    data[start] = data[start] & 0x3F | ((code + 1) % 3) << 6
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("tensor", "first"),
    [
        ("blk.0.attn_q.weight", "Qcur-0.MUL_MAT"),
        ("blk.1.ffn_down.weight", "ffn_down-1.MUL_MAT"),
        ("blk.1.attn_output.weight", "attn_o_out-1.MUL_MAT"),
    ],
)
def test_one_wrong_code_is_located(cli: Cli, tmp_path: Path, tensor: str, first: str) -> None:
    path = spoiled(tmp_path, tensor)
    done = cli("trace", "--model", TINY_MODEL, "--subject-model", path, "--tokens", IDS, "--format", "json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["parted"]
    assert found["first"]["name"] == first
    before = found["operations"][: [row["name"] for row in found["operations"]].index(first)]
    assert all(row["differing"] == 0 for row in before)


def test_a_trace_fits_the_terminal(cli: Cli, tmp_path: Path) -> None:
    path = spoiled(tmp_path, "blk.0.attn_q.weight")
    for extra in ((), ("--subject-model", path), ("--subject-model", path, "-v")):
        done = cli("trace", "--model", TINY_MODEL, "--tokens", IDS, *extra, COLUMNS="80")
        assert done.returncode == (1 if extra else 0), done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    assert "Qcur-0.MUL_MAT" in done.stdout


def test_a_file_says_what_it_holds(cli: Cli, tmp_path: Path) -> None:
    found = gate.model_info(TINY_MODEL)
    assert found["runs"]
    assert (found["layers"], found["hidden"], found["vocab"]) == (2, 256, 320)
    assert sum(row["bytes"] for row in found["types"]) == sum(row["bytes"] for row in found["tensors"])
    done = cli("model", "info", TINY_MODEL, "-v", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "blk.1.ffn_down.weight" in done.stdout
    (tmp_path / "other.gguf").write_bytes(TINY_MODEL.read_bytes().replace(b"bitnet", b"mamba!"))
    other = gate.model_info(tmp_path / "other.gguf")
    assert not other["runs"]
    assert "general.architecture" in other["why_not"]


def test_what_cannot_be_run_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    model = ("--model", TINY_MODEL)
    assert_refused(cli("generate", *model, "--tokens", "320"), "320", "vocabulary")
    assert_refused(cli("generate", *model, "--tokens", "1,x"), "--tokens", "1,x")
    assert_refused(cli("generate", *model, "--tokens", ""), "--tokens")
    assert_refused(cli("generate", *model, "--tokens", "1", "-n", "100000"), "positions")
    assert_refused(cli("generate", *model, "--tokens", "1", "--backend", "rust-avx9"), "rust-avx9", "known")
    assert_refused(cli("trace", *model, "--tokens", "1", "--reference", "cpp"), "cpp", "known")
    assert_refused(cli("generate", "--model", "none.gguf", "--tokens", "1"), "none.gguf")
    (tmp_path / "cut.gguf").write_bytes(TINY_MODEL.read_bytes()[:100_000])
    assert_refused(cli("trace", "--model", "cut.gguf", "--tokens", "1"), "cut.gguf")
    refused: list[dict[str, Any]] = [
        {"tokens": [-1]},
        {"tokens": []},
        {"tokens": [1], "threads": 0},
        {"tokens": [1], "cache": "q4"},
    ]
    for bad in refused:
        with pytest.raises(gate.InputError):
            gate.trace(TINY_MODEL, **bad)


PRODUCTS = {"attn_q, attn_k, attn_v", "attn_output", "ffn_gate, ffn_up", "ffn_down", "head"}


@pytest.mark.parametrize("backend", ["rust-scalar", "cpp-portable", None])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_of_every_operation_is_found(backend: str | None, threads: int) -> None:
    found = gate.time_breakdown(TINY_MODEL, prefill=8, decode=3, backend=backend, threads=threads)
    assert [(phase["phase"], phase["tokens"]) for phase in found["phases"]] == [("prefill", 8), ("decode", 3)]
    for phase in found["phases"]:
        times = {row["operation"]: row["elapsed_ns"] for row in phase["operations"]}
        # Between two notes of the engine lies an operation; little is left over for what stands around them.
        assert sum(times.values()) <= phase["elapsed_ns"]
        assert all(times[name] > 0 for name in PRODUCTS), times
    # Loops that are never vectorised spend their time on products, whatever the machine does beside.
    if backend == "rust-scalar":
        (prefill, _) = found["phases"]
        products = sum(row["elapsed_ns"] for row in prefill["operations"] if row["operation"] in PRODUCTS)
        assert products > prefill["elapsed_ns"] / 2
    assert "ffn_down" in found._repr_markdown_()
    assert "<svg" in found._repr_html_()


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_breakdown_is_a_table_and_a_picture(cli: Cli, tmp_path: Path) -> None:
    done = cli("model", "breakdown", TINY_MODEL, "--prefill", "4", "--decode", "0", "--plot", "time.png")
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "ffn_gate, ffn_up" in done.stdout
    assert "decode" not in done.stdout
    assert is_png(tmp_path / "time.png")
    assert_refused(cli("model", "breakdown", TINY_MODEL, "--prefill", "100000"), "100032 positions")
    assert_refused(cli("model", "breakdown", TINY_MODEL, "--plot", tmp_path / "no" / "x.png"), "x.png")
    assert_refused(cli("model", "breakdown", TINY_MODEL, "--backend", "rust-mmx"), "rust-mmx", "known")


def test_where_engines_part_is_drawn(cli: Cli, tmp_path: Path) -> None:
    other = spoiled(tmp_path, "blk.1.ffn_down.weight")
    done = cli("trace", "--model", TINY_MODEL, "--subject-model", other, "--tokens", IDS, "--plot", "map.png")
    assert done.returncode == 1, done.stderr
    assert is_png(tmp_path / "map.png")
    assert_refused(
        cli("trace", "--model", TINY_MODEL, "--tokens", IDS, "--plot", TINY_MODEL), str(TINY_MODEL)
    )
    assert_refused(cli("trace", "--model", TINY_MODEL, "--tokens", IDS, "--plot", "map.txt"), ".png")
    itself = ("--subject", "cpp-portable", "--reference", "cpp-portable")
    assert_refused(cli("trace", "--model", TINY_MODEL, "--tokens", IDS, *itself), "compared with itself")
    assert gate.trace(
        TINY_MODEL, PROMPT, subject="cpp-portable", reference="cpp-portable", subject_model=other
    )["parted"]
    found = gate.trace(TINY_MODEL, PROMPT, subject_model=other)
    assert "part at ffn_down-1" in found._repr_markdown_()
    assert "<svg" in found._repr_html_()
    equal = gate.trace(TINY_MODEL, PROMPT)
    assert "do not part" in equal._repr_markdown_()
    assert "<table" not in equal._repr_html_()
