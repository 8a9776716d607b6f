"""A model file as arrays. The file is mapped once; arrays are views of the map where its layout allows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_perfgate import _core, arrays
from bitnet_perfgate.documents import Document

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TERNARY = {"I2_S": "i2_s", "TL1": "tl1", "TL2": "tl2"}
VIEWS = {"F32": "<f4", "F16": "<f2"}


class Model(Mapping[str, "NDArray[np.floating[Any]] | arrays.PackedWeights"]):
    """The tensors of a GGUF file by name, read-only.

    F32 and F16 tensors are views of the mapped file, float32 and float16; I2_S, TL1 and TL2 are
    `PackedWeights` over it, with the published tile of their shape. BF16, Q8_0 and Q6_K are decoded to
    float32 at each access. Shapes are numpy's, the contiguous side last: ``[rows, cols]``. Nobody may shorten
    the file meanwhile.

    Raises:
        InputError: not a GGUF file; at access, a type that is not read, or a shape that its format cannot
            hold.
        FileError: the file cannot be read, or is no regular file.
        KeyError: at access, no tensor of that name.

    Example:
        >>> model = Model("tests/golden/tiny-i2s.gguf")
        >>> model.architecture, len(model), model.shapes["blk.0.ffn_down.weight"]
        ('bitnet', 24, (256, 512))
        >>> model["blk.0.ffn_down.weight"].format
        'i2_s'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Maps the file and reads where its tensors are."""
        self.path = os.fspath(path)
        self._bytes = _mapped(self.path)
        self.info = Document(json.loads(_core.mapped_model_info(self.path, self._bytes)))
        """The document of `model_info`."""
        self._tensors = {tensor["name"]: tensor for tensor in self.info["tensors"]}

    @property
    def architecture(self) -> str | None:
        """What the file calls it: ``bitnet-b1.58``, ..."""
        name: str | None = self.info["architecture"]
        return name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: tuple(reversed(tensor["sides"])) for name, tensor in self._tensors.items()}

    @property
    def types(self) -> dict[str, str]:
        """How each tensor is stored: ``I2_S``, ``F16``, ..."""
        return {name: tensor["type"] for name, tensor in self._tensors.items()}

    def __getitem__(self, name: str) -> NDArray[np.floating[Any]] | arrays.PackedWeights:
        """The tensor of that name."""
        tensor = self._tensors[name]
        shape = tuple(reversed(tensor["sides"]))
        stored = self._bytes[tensor["offset"] : tensor["offset"] + tensor["bytes"]]
        try:
            if tensor["type"] in TERNARY:
                return arrays.PackedWeights(TERNARY[tensor["type"]], shape, stored)
            if tensor["type"] in VIEWS:
                view: NDArray[np.floating[Any]] = stored.view(VIEWS[tensor["type"]]).reshape(shape)
                return view
            decoded: NDArray[np.float32] = arrays.numpy_module().empty(shape, "float32")
            _core.decode_floats(stored, tensor["type"], decoded.reshape(-1))
            return decoded
        except _core.InputError as error:
            raise _core.InputError(f"{self.path}: tensor {name}: {error}") from None

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the file."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._tensors)

    def __repr__(self) -> str:
        """File, architecture and number of tensors."""
        return f"Model({self.path!r}: {self.architecture}, {len(self)} tensors)"


def _mapped(path: str) -> Any:
    """The bytes of a regular file as a read-only array."""
    np = arrays.numpy_module()
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise _core.FileError(f"{path}: cannot read it: it is not a regular file")
        if Path(path).stat().st_size == 0:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except _core.FileError:
        raise
    except OSError as error:
        raise _core.FileError(f"{path}: cannot read it: {error.strerror or error}") from error
