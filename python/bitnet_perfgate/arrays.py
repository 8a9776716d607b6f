"""Weights and activations as numpy arrays: quantised, packed and multiplied by any backend here.

A matrix of weights is ``[rows, cols]``, outputs by inputs; ``n`` rows of activations are ``[n, cols]``. An
array is taken where it lies if it is C-contiguous and aligned, and copied if not. A dtype is never converted,
because that may change values: another one is an `InputError` that says what to write. Masked arrays, empty
arrays and, among floats, NaN and infinities are errors too. Work is done without the interpreter lock: do not
write to an input meanwhile.

numpy is an extra, ``pip install bitnet-perfgate[numpy]``, and loaded by the first call.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bitnet_perfgate import _core

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

MISSING = "numpy is not installed: pip install bitnet-perfgate[numpy]"


class Tile(NamedTuple):
    """Tile parameters of TL1 and TL2, which no file records: a reader must know those of the writer."""

    bm: int
    """Rows of a tile."""
    bk: int
    """Columns of a block."""
    by: int
    """Columns of an inner block, which has ``256 / by`` rows: 4 or 8; 8 in TL2."""


@dataclass(frozen=True, eq=False, repr=False)
class PackedWeights:
    """A ternary matrix in an interchange format.

    Args:
        format: ``i2_s``, ``tl1`` or ``tl2``.
        shape: ``(rows, cols)``, outputs by inputs.
        bytes: uint8, 1-D: codes, padding, scale and tail, exactly as in a GGUF tensor. Kept as a read-only
            view, not copied; whoever else holds the array must not write to it.
        tile: of TL1 and TL2; by default the published one of the shape (see `docs/FORMATS.md`).

    ``scale`` is what a code of +1 stands for; it is read from the bytes.

    Raises:
        InputError: a shape that the format or the tile cannot hold, another number of bytes, a scale that is
            none. Codes are looked at by whoever unpacks or multiplies.

    Example:
        >>> import numpy as np
        >>> weights = pack(np.ones((1, 128), np.int8), scale=0.5)
        >>> PackedWeights("i2_s", (1, 128), weights.bytes)
        PackedWeights(i2_s 1x128, scale 0.5, 64 bytes)
    """

    format: str
    shape: tuple[int, int]
    bytes: NDArray[np.uint8]
    tile: Tile | None = None
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        """Checks what the fields say against each other."""
        rows, cols = _sides(self.shape)
        with _named_errors(format=self.format, tile=self.tile):
            _, _, tile = _core.layout(self.format, (rows, cols), self.tile)
        held = _array("bytes", self.bytes, "uint8", ("[n_bytes]",)).view()
        held.flags.writeable = False
        for name, value in (("shape", (rows, cols)), ("bytes", held), ("tile", tile and Tile(*tile))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "scale", _core.packed_scale(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made, and checked, as any other: read-only, with the scale that its bytes hold."""
        return PackedWeights, (self.format, self.shape, self.bytes, self.tile)

    def __repr__(self) -> str:
        """Format, sides, scale and size."""
        rows, cols = self.shape
        tile = f", {self.tile}" if self.tile else ""
        return (
            f"PackedWeights({self.format} {rows}x{cols}, scale {self.scale:g}, {len(self.bytes)} bytes{tile})"
        )


class Activations(NamedTuple):
    """Quantised activations: ``codes / scales`` is close to what they were."""

    codes: NDArray[np.int8]
    """int8, of the shape of the input."""
    scales: NDArray[np.float32]
    """float32 ``[n]``: what a row was multiplied by, 127 / absmax."""
    sums: NDArray[np.int32]
    """int32 ``[n]``: the sum of a row's codes."""


def quantize(
    weights: ArrayLike,
    format: str = "i2_s",
    rule: str = "absmean",
    *,
    tile: Tile | None = None,
    backend: str | None = None,
) -> PackedWeights:
    """Float weights to packed ternary ones.

    Args:
        weights: float32 ``[rows, cols]``.
        format: ``i2_s``, ``tl1`` or ``tl2``.
        rule: ``absmean`` divides by the mean magnitude, rounds and clamps, as the converter does with trained
            floats; ``maxabs`` keeps signs, as bitnet.cpp's packer does with weights that already are 0 or
            +-s.
        tile: of TL1 and TL2; by default the published one of the shape.
        backend: a name of `backends`, by default the fastest Rust one. All give the same bytes.

    Raises:
        InputError: what the head of this module names; an unknown name; a shape that the format cannot hold.

    Example:
        >>> import numpy as np
        >>> weights = quantize(np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128))
        >>> weights.shape, round(weights.scale, 3), unpack(weights)[0, :3].tolist()
        ((2, 128), 0.502, [-1, -1, -1])
    """
    array = _array("weights", weights, "float32", ("[rows, cols]",))
    packed, tile = _room(format, array.shape, tile)
    with _named_errors(rule=rule, backend=backend):
        _core.quantize_weights(array, packed, format, rule, tile, backend)
    return PackedWeights(format, array.shape, packed, tile)


def dequantize(weights: PackedWeights, *, backend: str | None = None) -> NDArray[np.float32]:
    """Packed weights to floats, code times scale: float32 ``[rows, cols]``.

    Raises `InputError` for bytes that no packer writes, and for an unknown or unavailable ``backend``.

    Example:
        >>> import numpy as np
        >>> dequantize(pack(np.ones((1, 128), np.int8), scale=0.5))[0, :2].tolist()
        [0.5, 0.5]
    """
    out: NDArray[np.float32] = _empty(_packed(weights).shape, "float32")
    _core.dequantize_weights(weights, out, backend)
    return out


def pack(
    codes: ArrayLike, format: str = "i2_s", *, scale: float = 1.0, tile: Tile | None = None
) -> PackedWeights:
    """Ternary codes, int8 ``[rows, cols]`` of -1, 0 and +1, to bytes that say what a code of +1 stands for.

    ``format`` and ``tile`` as in `quantize`. Raises `InputError` for other codes, and a scale that is
    negative, infinite or NaN in float32.

    Example:
        >>> import numpy as np
        >>> pack(np.zeros((128, 256), np.int8), "tl1")
        PackedWeights(tl1 128x256, scale 1, 8224 bytes, Tile(bm=128, bk=64, by=8))
    """
    array = _array("codes", codes, "int8", ("[rows, cols]",))
    packed, tile = _room(format, array.shape, tile)
    if scale != 0 and numpy_module().float32(scale) == 0:
        raise _core.InputError(f"scale is {scale}: too small for float32, every weight would be 0")
    with _named_errors(scale=scale):
        _core.pack(array, packed, format, scale, tile)
    return PackedWeights(format, array.shape, packed, tile)


def unpack(weights: PackedWeights) -> NDArray[np.int8]:
    """The ternary codes of packed weights: int8 ``[rows, cols]`` of -1, 0 and +1.

    Raises `InputError` for bytes that no packer writes: a wrong layout, or damage.

    Example:
        >>> import numpy as np
        >>> codes = np.tile(np.array([-1, 0, 1, 0], np.int8), (2, 32))
        >>> bool((unpack(pack(codes)) == codes).all())
        True
    """
    out: NDArray[np.int8] = _empty(_packed(weights).shape, "int8")
    _core.unpack(weights, out)
    return out


def quantize_activations(x: ArrayLike, *, backend: str | None = None) -> Activations:
    """Float activations to int8, each row by its own scale, 127 / absmax.

    Args:
        x: float32 ``[n, cols]``, or ``[cols]`` for one row.
        backend: a name of `backends`, by default the fastest Rust one. All give the same codes.

    Raises:
        InputError: what the head of this module names, or an unknown name.

    Example:
        >>> import numpy as np
        >>> codes, scales, sums = quantize_activations(np.array([[0.5, -1.0, 0.25]], np.float32))
        >>> codes.tolist(), scales.tolist(), sums.tolist()
        ([[64, -127, 32]], [127.0], [-31])
    """
    array = _array("x", x, "float32", ("[n, cols]", "[cols]"))
    rows = array.reshape(-1, array.shape[-1])
    n = len(rows)
    codes, scales, sums = _empty(rows.shape, "int8"), _empty((n,), "float32"), _empty((n,), "int32")
    _core.quantize_activations(rows, codes, scales, sums, backend)
    return Activations(codes.reshape(array.shape), scales, sums)


def matmul(
    weights: PackedWeights, x: ArrayLike, *, backend: str | None = None, threads: int = 1
) -> NDArray[np.int32] | NDArray[np.float32]:
    """Products of packed weights with activations, ``[n, rows]``. The weights are prepared anew by each call.

    Args:
        weights: ``[rows, cols]``.
        x: ``[n, cols]``, or ``[cols]`` for one row. int8: the exact products of the codes, int32, without the
            scale. float32: the whole linear layer, float32: quantised, multiplied and scaled
            (`docs/NUMERICS.md`).
        backend: a name of `backends`, by default the fastest Rust one. All give the same bits.
        threads: of the product; a backend that cannot run on so many says so.

    Raises:
        InputError: what the head of this module names; other columns than the weights have; bytes that no
            packer writes; what the backend does not support.

    Example:
        >>> import numpy as np
        >>> weights = pack(np.ones((2, 128), np.int8), scale=0.5)
        >>> matmul(weights, np.full(128, 3, np.int8)).tolist()
        [384, 384]
        >>> matmul(weights, np.full((1, 128), 3, np.float32)).tolist()
        [[192.0, 192.0]]
    """
    rows, cols = _packed(weights).shape
    dtype = "int8" if getattr(x, "dtype", None) == "int8" else "float32"
    array = _array("x", x, dtype, ("[n, cols]", "[cols]"), "int8 or float32")
    if array.shape[-1] != cols:
        expected = f"expected [n, {cols}] or [{cols}]: the weights are {rows}x{cols}"
        raise _core.InputError(f"x has shape {array.shape}, {expected}")
    matrix = array.reshape(-1, cols)
    out: Any = _empty((len(matrix), rows), "int32" if dtype == "int8" else "float32")
    product: Any = _core.matmul_i8_i32 if dtype == "int8" else _core.linear_f32_f32
    with _named_errors(threads=threads, backend=backend):
        product(weights, matrix, out, backend, threads)
    products: NDArray[np.int32] | NDArray[np.float32] = out.reshape(*array.shape[:-1], rows)
    return products


def numpy_module() -> Any:
    """numpy, or an `ImportError` that names the extra."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError(MISSING) from error
    return numpy


def _array(name: str, value: Any, dtype: str, shapes: tuple[str, ...], accepted: str = "") -> Any:
    """The value as an array of that dtype, one of the shapes, C-contiguous, aligned and not empty."""
    np = numpy_module()
    parts = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise _core.InputError(f"{name} is masked: say what the masked values are, such as {name}.filled(0)")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _core.InputError(f"{name} is no array: {error}") from error
    if array.dtype != np.dtype(dtype):
        remedy = f"convert it with {name}.astype(numpy.{dtype}) if no value is lost by it"
        raise _core.InputError(f"{name} has dtype {array.dtype}, expected {accepted or dtype}: {remedy}")
    if array.ndim not in [shape.count(",") + 1 for shape in shapes]:
        raise _core.InputError(f"{name} has shape {array.shape}, expected {' or '.join(shapes)}")
    if array.size == 0:
        raise _core.InputError(f"{name} has shape {array.shape}: it is empty")
    return np.require(array, requirements=["C", "A"])


def _packed(weights: object) -> PackedWeights:
    if not isinstance(weights, PackedWeights):
        found = type(weights).__name__
        raise _core.InputError(f"weights is a {found}, expected PackedWeights: see quantize and pack")
    return weights


def _sides(shape: object) -> tuple[int, int]:
    try:
        rows, cols = map(operator.index, shape)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise _core.InputError(f"shape is {shape!r}, expected (rows, cols)") from None
    if rows < 1 or cols < 1:
        raise _core.InputError(f"shape is {(rows, cols)}: it is empty")
    return rows, cols


def _room(format: str, shape: tuple[int, int], tile: Tile | None) -> tuple[Any, Tile | None]:
    """An array for the packed bytes of that layout, and its tile."""
    with _named_errors(format=format, tile=tile):
        packed_bytes, _, chosen = _core.layout(format, shape, tile)
    return _empty((packed_bytes,), "uint8"), chosen and Tile(*chosen)


@contextmanager
def _named_errors(**arguments: object) -> Iterator[None]:
    """A value that the core cannot take at all is an input error like any other."""
    try:
        yield
    except _core.InputError:
        raise
    except (OverflowError, TypeError, ValueError) as error:
        found = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise _core.InputError(f"{found}: {error}") from error


def _empty(shape: tuple[int, ...], dtype: str) -> Any:
    return numpy_module().empty(shape, dtype)
