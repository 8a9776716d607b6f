"""Weights and activations as numpy arrays: the real bitnet.cpp's bytes, every backend, what is refused."""

import copy
import doctest
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet_perfgate as gate
from bitnet_perfgate import _core, arrays, gguf, machine
from conftest import REPOSITORY, TINY_MODEL

GOLDEN = REPOSITORY / "tests" / "golden"
BACKENDS = gate.backends()
# What repacks I2_S takes nothing else.
OF_ALL_FORMATS = [row["name"] for row in gate.doctor()["backends"] if row["available"] and not row["repacks"]]
FORMATS = ("i2_s", "tl1", "tl2")
# A shape that every format holds, with its own published tiles.
SHAPE = (128, 256)


def golden(pattern: str, count: int) -> list[Path]:
    """The files of that pattern; as many as there must be."""
    found = sorted(GOLDEN.glob(pattern))
    assert len(found) == count
    return found


def number(path: Path, key: str) -> int:
    """The number behind a key in a name such as ``tl2_m128_k256_bm128_bk96``."""
    (value,) = re.findall(rf"_{key}(\d+)(?=_|$)", path.stem)
    return int(value)


I2S = golden("i2s_*.npz", 11)
TL = golden("tl?_*.npz", 4)


def name_of(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


def ternary(shape: tuple[int, int] = SHAPE, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(-1, 2, shape, np.int8)


def i2s_case(path: Path) -> tuple[Any, gate.PackedWeights]:
    """A golden file, and its weights with a whole tail: bitnet.cpp's stop after the scale here."""
    case = np.load(path)
    packed = np.concatenate([case["packed"], np.zeros(28, np.uint8)])
    return case, gate.PackedWeights("i2_s", (number(path, "m"), number(path, "k")), packed)


def tile_of(path: Path) -> gate.Tile:
    by = 256 // number(path, "bmm") if path.stem.startswith("tl1") else 8
    return gate.Tile(bm=number(path, "bm"), bk=number(path, "bk"), by=by)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [path for path in I2S if "w" in np.load(path)], ids=name_of)
def test_i2s_is_quantised_to_the_bytes_of_bitnet_cpp(path: Path, backend: str) -> None:
    case, weights = i2s_case(path)
    ours = gate.quantize(case["w"], "i2_s", "maxabs", backend=backend)
    assert ours.scale == case["w_scale"][0] == weights.scale
    assert (ours.bytes == weights.bytes).all()


@pytest.mark.parametrize("path", I2S, ids=name_of)
def test_i2s_is_unpacked_and_packed_again(path: Path) -> None:
    _, weights = i2s_case(path)
    assert (gate.pack(gate.unpack(weights), scale=weights.scale).bytes == weights.bytes).all()


@pytest.mark.parametrize("path", TL, ids=name_of)
def test_tl_codes_are_packed_to_the_bytes_of_bitnet_cpp(path: Path) -> None:
    case = np.load(path)
    scale = case["w_scale"][0] if "w_scale" in case else 0.5
    weights = gate.pack(case["q"], path.stem[:3], scale=scale, tile=tile_of(path))
    # What bitnet.cpp leaves behind the scale is whatever was in its buffer (docs/FORMATS.md 1).
    fixed = weights.bytes[:-28] if "w_scale" in case else weights.bytes[: case["q"].size // 4]
    assert (fixed == case["packed"][: len(fixed)]).all()
    assert len(fixed) in (len(case["packed"]), len(case["packed"]) - 28)
    assert (gate.unpack(weights) == case["q"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", TL, ids=name_of)
def test_tl_weights_are_quantised_to_the_bytes_of_bitnet_cpp(path: Path, backend: str) -> None:
    codes = np.load(path)["q"]
    scale = np.float32(0.25)
    ours = gate.quantize(codes * scale, path.stem[:3], "maxabs", tile=tile_of(path), backend=backend)
    expected = gate.pack(codes, path.stem[:3], scale=0.25, tile=tile_of(path))
    assert (ours.bytes == expected.bytes).all()
    assert ours.tile == tile_of(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", I2S, ids=name_of)
def test_activations_are_those_of_bitnet_cpp(path: Path, backend: str) -> None:
    case, _ = i2s_case(path)
    codes, scales, sums = gate.quantize_activations(case["x"], backend=backend)
    assert (codes == case["x_q8"]).all()
    assert (scales == case["x_scale"]).all()
    assert (sums == case["x_sum"]).all()
    assert [str(array.dtype) for array in (codes, scales, sums)] == ["int8", "float32", "int32"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [path for path in I2S if "overflow" not in path.stem], ids=name_of)
def test_i2s_products_and_outputs_are_those_of_bitnet_cpp(path: Path, backend: str) -> None:
    case, weights = i2s_case(path)
    # bitnet.cpp multiplies codes 0, 1, 2: its product is ours and the sum of the activation codes.
    products = gate.matmul(weights, case["x_q8"], backend=backend)
    assert products.dtype == np.int32
    assert (products + case["x_sum"][:, None] == case["dot"]).all()
    outputs = gate.matmul(weights, case["x"], backend=backend)
    assert outputs.dtype == np.float32
    assert (outputs == case["y"]).all()


@pytest.mark.parametrize("backend", OF_ALL_FORMATS)
@pytest.mark.parametrize("path", [path for path in TL if "tl2" in path.stem], ids=name_of)
def test_tl2_outputs_are_those_of_bitnet_cpp(path: Path, backend: str) -> None:
    case = np.load(path)
    weights = gate.pack(case["q"], "tl2", scale=case["w_scale"][0], tile=tile_of(path))
    assert (gate.matmul(weights, case["x"], backend=backend) == case["y"]).all()


@pytest.mark.parametrize("backend", OF_ALL_FORMATS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_backend_gives_what_numpy_gives(format: str, backend: str) -> None:
    codes = ternary()
    weights = gate.pack(codes, format, scale=0.5)
    assert (gate.unpack(weights) == codes).all()
    assert (gate.dequantize(weights, backend=backend) == codes * np.float32(0.5)).all()
    x = np.random.default_rng(2).integers(-128, 128, (3, 256), np.int8)
    expected = x.astype(np.int32) @ codes.T.astype(np.int32)
    assert (gate.matmul(weights, x, backend=backend) == expected).all()
    assert (gate.matmul(weights, x[1], backend=backend) == expected[1]).all()
    again = gate.quantize(codes * np.float32(0.5), format, "maxabs", backend=backend)
    assert (again.bytes == weights.bytes).all()


@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - set(OF_ALL_FORMATS)))
def test_repacking_backends_take_i2s_alone(backend: str) -> None:
    weights = gate.pack(ternary(), "tl2", scale=0.5)
    with pytest.raises(gate.InputError, match=f"{backend} does not support tl2: it repacks i2_s"):
        gate.matmul(weights, np.ones((1, 256), np.int8), backend=backend)


def test_the_rules_differ_as_they_are_described() -> None:
    w = np.tile(np.array([0.1, -0.2, 3.0, 0.0], np.float32), (2, 32))
    mean = gate.quantize(w, rule="absmean")
    assert gate.unpack(mean)[0, :4].tolist() == [0, 0, 1, 0]
    assert mean.scale == pytest.approx(3.3 / 4)
    signs = gate.quantize(w, rule="maxabs")
    assert gate.unpack(signs)[0, :4].tolist() == [1, -1, 1, 0]
    assert signs.scale == 3.0


def test_arrays_in_order_are_not_copied_and_others_are() -> None:
    x = np.ones((4, 256), np.float32)
    assert arrays._array("x", x, "float32", ("[n, cols]",)) is x
    expected: tuple[Any, ...] = gate.quantize_activations(x * np.arange(4, dtype=np.float32)[:, None])
    whole = np.zeros((8, 512), np.float32)
    whole[::2, ::2] = x * np.arange(4, dtype=np.float32)[:, None]
    unaligned = np.frombuffer(bytearray(4 * 1024 + 1), np.uint8)[1:].view(np.float32).reshape(4, 256)
    assert not unaligned.flags.aligned
    unaligned[:] = whole[::2, ::2]
    for other in (whole[::2, ::2], np.asfortranarray(whole[::2, ::2]), unaligned):
        found: tuple[Any, ...] = gate.quantize_activations(other)
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    codes = ternary()
    assert (gate.unpack(gate.pack(np.asfortranarray(codes))) == codes).all()


def test_packed_weights_cannot_be_written_to() -> None:
    weights = gate.pack(ternary())
    with pytest.raises(ValueError, match="read-only"):
        weights.bytes[0] = 1
    with pytest.raises(AttributeError):
        weights.scale = 2.0  # type: ignore[misc]
    held = np.array(weights.bytes)
    view = gate.PackedWeights("i2_s", SHAPE, held)
    assert view.bytes.base is held
    assert held.flags.writeable


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: gate.quantize(w.astype(np.float64)), "weights has dtype float64, expected float32"),
        (lambda w: gate.quantize(w.astype(">f4")), "weights has dtype >f4, expected float32"),
        (lambda w: gate.quantize(w[0]), r"weights has shape \(256,\), expected \[rows, cols\]"),
        (lambda w: gate.quantize(w[None]), r"shape \(1, 128, 256\)"),
        (lambda w: gate.quantize(w[:0]), r"shape \(0, 256\): it is empty"),
        (lambda _: gate.quantize([[1.0], [1.0, 2.0]]), "weights is no array"),
        (lambda w: gate.quantize(np.ma.masked_array(w)), r"weights is masked.*weights\.filled\(0\)"),
        (lambda w: gate.quantize(list(np.ma.masked_array(w, w > 0))), r"weights is masked.*filled"),
        (lambda _: gate.pack(np.ma.masked_array(ternary())), r"codes is masked.*codes\.filled\(0\)"),
        (lambda w: gate.matmul(gate.pack(ternary()), np.ma.masked_array(w)), r"x is masked.*x\.filled\(0\)"),
        (lambda w: gate.quantize_activations(np.ma.masked_array(w)), r"x is masked.*x\.filled\(0\)"),
        (lambda _: gate.PackedWeights("i2_s", SHAPE, np.ma.masked_array(np.zeros(9, np.uint8))), "masked"),
        (lambda w: gate.quantize(w, "i9_s"), 'no format is called "i9_s"; known: i2_s, tl1, tl2'),
        (lambda w: gate.quantize(w, rule="mean"), 'no rule is called "mean"; known: absmean, maxabs'),
        (lambda w: gate.quantize(w, backend="rust-avx3"), "no backend is called.*known: rust-scalar"),
        (lambda w: gate.quantize(w[:, :100]), "i2_s cannot hold 128x100: K % 128 = 100, must be 0"),
        (lambda w: gate.quantize(w, tile=gate.Tile(128, 64, 8)), "it has no tiles"),
        (lambda w: gate.quantize(w, "tl1", tile=gate.Tile(96, 64, 8)), "M % BM = 128 % 96"),
        (lambda w: gate.quantize(np.where(w == w[3, 5], np.nan, w)), r"weights\[3, 5\] is NaN"),
        (lambda _: gate.pack(np.full(SHAPE, 2, np.int8)), r"codes\[0, 0\] is 2, expected -1, 0 or \+1"),
        (lambda _: gate.pack(np.zeros(SHAPE, np.int64)), "codes has dtype int64, expected int8"),
        (lambda _: gate.pack(np.zeros(SHAPE, np.int8), scale=-1.0), "scale of a i2_s tensor is -1"),
        (lambda _: gate.pack(np.zeros(SHAPE, np.int8), scale=float("nan")), "NaN"),
        (lambda w: gate.unpack(w), "weights is a ndarray, expected PackedWeights"),
        (lambda w: gate.quantize_activations(w[0, 0]), r"shape \(\), expected \[n, cols\] or \[cols\]"),
        (lambda _: gate.quantize_activations(np.full((2, 3), np.inf, np.float32)), r"x\[0, 0\] is inf"),
        (lambda w: gate.matmul(gate.pack(ternary()), w[:, :100]), r"\(128, 100\), expected \[n, 256\]"),
        (lambda w: gate.matmul(gate.pack(ternary()), w.astype(int)), "int64, expected int8 or float32"),
        (lambda w: gate.matmul(gate.pack(ternary()), w, backend="rust-scalar", threads=2), "2 threads"),
        (lambda _: gate.PackedWeights("i2_s", SHAPE, np.zeros(9, np.uint8)), "packed weights has 9 elements"),
        (lambda _: gate.PackedWeights("i2_s", 128, np.zeros(9, np.uint8)), "shape is 128, expected"),  # type: ignore[arg-type]
        (lambda _: gate.PackedWeights("i2_s", (-1, 128), np.zeros(9, np.uint8)), r"\(-1, 128\)"),
        (lambda _: gate.unpack(gate.PackedWeights("i2_s", (1, 128), np.full(64, 255, np.uint8))), "scale"),
    ],
)  # fmt: skip
def test_unusable_arrays_are_named(call: Callable[[Any], object], words: str) -> None:
    with pytest.raises(gate.InputError, match=words):
        call(np.random.default_rng(3).normal(size=SHAPE).astype(np.float32))


def test_bytes_that_no_packer_writes_are_refused() -> None:
    damaged = np.array(gate.pack(ternary()).bytes)
    damaged[7] = 0xFF
    weights = gate.PackedWeights("i2_s", SHAPE, damaged)
    for call in (gate.unpack, gate.dequantize, lambda w: gate.matmul(w, np.zeros(256, np.int8))):
        with pytest.raises(gate.InputError, match="byte 7 holds"):
            call(weights)


def test_other_threads_run_meanwhile() -> None:
    """While one thread multiplies, another counts: it could not if the interpreter lock were held."""
    weights = gate.pack(ternary((2560, 2560)))
    x = np.ones((64, 2560), np.int8)
    done = threading.Event()
    counted = 0

    def multiply() -> None:
        gate.matmul(weights, x, backend="rust-scalar")
        done.set()

    thread = threading.Thread(target=multiply)
    thread.start()
    while not done.is_set():
        counted += 1
        time.sleep(0.001)
    thread.join()
    assert counted > 5


def test_a_model_is_a_mapping_of_its_tensors() -> None:
    model = gate.Model(TINY_MODEL)
    info = gate.model_info(TINY_MODEL)
    assert model.info.data == info.data
    assert list(model) == [tensor["name"] for tensor in info["tensors"]]
    assert model.architecture == info["architecture"]
    assert set(model.types.values()) == {"F32", "F16", "I2_S"}
    raw = np.fromfile(TINY_MODEL, np.uint8)
    for name, tensor in model.items():
        row = next(row for row in info["tensors"] if row["name"] == name)
        stored = raw[row["offset"] : row["offset"] + row["bytes"]]
        assert model.shapes[name] == tuple(row["sides"][::-1])
        if isinstance(tensor, gate.PackedWeights):
            assert tensor.shape == model.shapes[name]
            assert (tensor.bytes == stored).all()
            assert set(np.unique(gate.unpack(tensor))) == {-1, 0, 1}
        else:
            assert tensor.shape == model.shapes[name]
            assert (tensor.reshape(-1).view(np.uint8) == stored).all()
            assert not tensor.flags.writeable
    with pytest.raises(KeyError):
        model["nobody"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_tensor_of_every_format_is_packed_weights(tmp_path: Path, format: str) -> None:
    path = tmp_path / "model.gguf"
    gate.make_model(path, "tiny", format)
    model = gate.Model(path)
    weights = model["blk.0.ffn_down.weight"]
    assert isinstance(weights, gate.PackedWeights)
    assert (weights.format, weights.shape) == (format, (256, 512))
    x = np.random.default_rng(4).normal(size=(2, 512)).astype(np.float32)
    outputs = gate.matmul(weights, x)
    exact = x.astype(np.float64) @ gate.dequantize(weights).T.astype(np.float64)
    assert np.linalg.norm(outputs - exact) < 0.02 * np.linalg.norm(exact)


def test_float_blocks_are_decoded() -> None:
    halves = np.array([1.5, -2.25], np.float32).view(np.uint32) >> 16
    out = np.empty(2, np.float32)
    _core.decode_floats(halves.astype(np.uint16).view(np.uint8), "BF16", out)
    assert out.tolist() == [1.5, -2.25]
    block = np.concatenate([np.array([0.5], np.float16).view(np.uint8), np.arange(32, dtype=np.uint8)])
    out = np.empty(32, np.float32)
    _core.decode_floats(block, "Q8_0", out)
    assert out.tolist() == [0.5 * code for code in range(32)]
    with pytest.raises(gate.InputError, match="31 values of Q8_0 do not lie in 34 bytes"):
        _core.decode_floats(block, "Q8_0", out[1:])
    with pytest.raises(gate.InputError, match="Q4_K are not read; known: F32"):
        _core.decode_floats(block, "Q4_K", out)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(gate.FileError, match=re.escape(str(missing))):
            gate.Model(missing)
    whole = TINY_MODEL.read_bytes()
    for content in (b"", b"GGUF", whole[:1000], whole[:-1]):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        with pytest.raises(gate.InputError, match=r"bad\.gguf"):
            gate.Model(path)


def test_without_numpy_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["numpy"] = None
import bitnet_perfgate as gate
assert gate.backends()
for call in (lambda: gate.quantize([[1.0]]), lambda: gate.Model("x.gguf")):
    try:
        call()
    except ImportError as error:
        assert "bitnet-perfgate[numpy]" in str(error)
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for module, examples in ((arrays, 20), (gguf, 3), (machine, 1)):
        found = doctest.testmod(module)
        assert (found.attempted, found.failed) == (examples, 0), module


def test_a_copy_is_as_read_only_as_what_it_is_a_copy_of() -> None:
    weights = gate.pack(np.ones((2, 128), np.int8), scale=0.5)
    for other in (copy.deepcopy(weights), pickle.loads(pickle.dumps(weights))):
        assert not other.bytes.flags.writeable
        assert (other.scale, other.shape, other.tile) == (weights.scale, weights.shape, weights.tile)
        assert (gate.unpack(other) == gate.unpack(weights)).all()


def test_values_that_no_number_of_the_core_holds_are_input_errors() -> None:
    codes = np.ones((2, 128), np.int8)
    weights = gate.pack(codes)
    x = np.ones(128, np.float32)
    for wrong in (
        lambda: gate.matmul(weights, x, threads=-1),
        lambda: gate.matmul(weights, x, threads=None),  # type: ignore[arg-type]
        lambda: gate.pack(codes, "tl1", tile=gate.Tile(-1, 64, 8)),
        lambda: gate.pack(codes, "tl1", tile=gate.Tile(2**64, 64, 8)),
        lambda: gate.pack(codes, "tl1", tile=(32,)),  # type: ignore[arg-type]
        lambda: gate.quantize(codes.astype(np.float32), rule=None),  # type: ignore[arg-type]
        lambda: gate.quantize(codes.astype(np.float32), format=b"i2_s"),  # type: ignore[arg-type]
        lambda: gate.PackedWeights("i2_s", (2**70, 128), weights.bytes),
        lambda: gate.PackedWeights("i2_s", (1.9, 128.7), weights.bytes),  # type: ignore[arg-type]
        lambda: gate.pack(codes, scale=1e-46),
    ):
        with pytest.raises(gate.InputError):
            wrong()
