"""Model files: which ternary layout is this (`identify`), and a synthetic one (`make_model`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Document
from bitnet_perfgate.runs import DEFAULT_SEED

LONGEST_SIDE = 2**31 - 1


def identify(
    path: str | os.PathLike[str], *, tensor: str | None = None, shape: tuple[int, int] | None = None
) -> Document:
    """Which layouts the ternary tensors of a file are consistent with, whatever the file declares.

    Args:
        path: a GGUF file; with ``shape``, a file of raw weight bytes.
        tensor: only the tensor of that name.
        shape: (outputs, inputs) of the raw bytes, each at most 2^31 - 1, at most 2^32 weights in all.

    Returns:
        ``tensors``, a row for each: its name, declared type, ``layouts`` with the finding for each known
        layout (``consistent``, ``doubtful``, ``impossible`` and why), and ``conclusion``, one sentence.

    Raises:
        InputError: not a GGUF file, or one without such a tensor; a shape that no weights have.
        FileError: the file cannot be read, or is no regular file.

    Example:
        >>> identify("model.gguf")["tensors"][0]["conclusion"]  # doctest: +SKIP
    """
    if shape is not None and not all(1 <= side <= LONGEST_SIDE for side in shape):
        raise _core.InputError(f"shape {shape[0]}x{shape[1]}: expected sides of 1 to {LONGEST_SIDE}")
    return Document(json.loads(_core.identify(os.fspath(path), tensor, shape)))


def make_model(
    path: str | os.PathLike[str],
    preset: str = "tiny",
    format: str = "i2_s",
    seed: int = DEFAULT_SEED,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> Document:
    """Writes a synthetic GGUF model with random ternary weights: equal arguments give equal bytes.

    Args:
        path: the file to write; it appears whole or not at all, and replaces an existing one. A symbolic link
            to a regular file is replaced itself; what is no regular file is refused.
        preset: the shape of a public model, or ``tiny``; an unknown name raises with those that exist.
        format: how the linear layers are stored.
        seed: of everything random.
        progress: told bytes written and bytes in all.

    Returns:
        ``file``, ``preset``, ``format``, ``seed``, ``bytes``, ``sha256`` and ``ternary_weights``.

    Raises:
        InputError: an unknown name, or a format that cannot hold the shape (3b as i2_s).
        FileError: the file cannot be written.

    Example:
        >>> make_model("tiny.gguf", "tiny", "i2_s", seed=42)["sha256"]  # doctest: +SKIP
    """
    return Document(json.loads(_core.make_model(os.fspath(path), preset, format, seed, progress)))
