"""Model files: layouts, synthetic ones, what one holds; engines: tokens, where two part, where time goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Document, TimeBreakdown, Trace
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


def model_info(path: str | os.PathLike[str]) -> Document:
    """What a model file holds, and whether the engines here run it.

    Returns:
        ``architecture``, ``name``, ``bytes``; ``types``, tensors and bytes of each type; ``tensors``, each
        with its name, type, sides (K first), offset in the file and bytes; ``runs``, and either the model's
        sides or ``why_not``.

    Raises:
        InputError: not a GGUF file.
        FileError: the file cannot be read, or is no regular file.

    Example:
        >>> model_info("model.gguf")["layers"]  # doctest: +SKIP
    """
    return Document(json.loads(_core.model_info(os.fspath(path))))


def generate(
    path: str | os.PathLike[str],
    prompt: Sequence[int],
    n: int = 16,
    *,
    backend: str | None = None,
    threads: int = 1,
    numerics: str = "ggml",
    cache: str = "f16",
    plugins: Iterable[str | os.PathLike[str]] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Document:
    """Runs a prompt of token ids and then, n times, the token with the largest logit.

    Args:
        path: a GGUF model file.
        prompt: token ids, at least one; text in and out is not part of this version.
        n: how many tokens to choose.
        backend: whose engine; the fastest Rust one by default.
        threads: of the engine; the tokens do not depend on it.
        numerics: ``ggml``, rounding where bitnet.cpp does, or ``pure-f32``.
        cache: of keys and values, ``f16`` or ``f32``.
        plugins: shared libraries whose backends may be named.
        progress: told tokens chosen and tokens in all.

    Returns:
        ``tokens``, the ids chosen; ``prefill_ns`` for the prompt, ``decode_ns`` for the ``decoded`` tokens
        after the first one, which comes out of the prompt. One run is no measurement: `run` measures.

    Raises:
        InputError: not a model that engines run; a token that is none of its; a context that is too short.
        FileError: the file cannot be read.

    Example:
        >>> generate("model.gguf", [1, 15, 23], 8)["tokens"]  # doctest: +SKIP
    """
    found = _core.generate(
        os.fspath(path),
        _token_ids(prompt),
        _counted(n, "n"),
        backend,
        (numerics, cache, _counted(threads, "threads")),
        list(plugins),
        progress,
    )
    return Document(json.loads(found))


def trace(
    path: str | os.PathLike[str],
    tokens: Sequence[int],
    *,
    subject: str | None = None,
    reference: str | None = None,
    subject_model: str | os.PathLike[str] | None = None,
    step: bool = False,
    bound: float = 0.0,
    threads: int = 1,
    numerics: str = "ggml",
    cache: str = "f16",
    plugins: Iterable[str | os.PathLike[str]] = (),
) -> Trace:
    """Runs two engines over the same tokens and finds the first operation at which they part.

    Args:
        path: a GGUF model file.
        tokens: token ids that both run, whatever they would have chosen themselves.
        subject: whose engine is looked at; the fastest Rust one by default.
        reference: whose engine it is held against; the fastest C++ one by default.
        subject_model: another file for the subject, of the same sides: two conversions of one model.
        step: one token at a time, instead of all at once.
        bound: a difference counts from this share of an intermediate's root mean square on; 0: equal bits.
        threads: of both engines.
        numerics: ``ggml``, rounding where bitnet.cpp does, or ``pure-f32``.
        cache: of keys and values, ``f16`` or ``f32``.
        plugins: shared libraries whose backends may be named.

    Returns:
        ``parted``; ``first``, where: name, layer, operation, position, index and both values; ``operations``
        in the order of computing, each with ``max_abs``, ``relative`` (norm of the difference over the norm),
        ``differing`` values and ``codes_flipped`` of what a linear layer quantises; ``logits``: tokens with
        equal ``top1`` and ``top5``, Kullback-Leibler divergence in nats, the largest difference.

    Raises:
        InputError: not a model that engines run; an unknown backend; a token that is none of the model's.
        FileError: the file cannot be read.

    Example:
        >>> trace("model.gguf", [1, 15, 23])["parted"]  # doctest: +SKIP
    """
    found = _core.trace(
        os.fspath(path),
        _token_ids(tokens),
        subject,
        reference,
        step,
        bound,
        (numerics, cache, _counted(threads, "threads")),
        list(plugins),
        subject_model,
    )
    return Trace(json.loads(found))


def time_breakdown(
    path: str | os.PathLike[str],
    *,
    prefill: int = 128,
    decode: int = 32,
    seed: int = DEFAULT_SEED,
    backend: str | None = None,
    threads: int = 1,
    numerics: str = "ggml",
    cache: str = "f16",
    plugins: Iterable[str | os.PathLike[str]] = (),
) -> TimeBreakdown:
    """Where the time of a model goes, by operation, in one run; no measurement of speed: `run` measures.

    Our own engine is what tells its operations apart; a backend that brings an engine of its own is looked
    at through its products.

    Args:
        path: a GGUF model file.
        prefill: tokens run at once, at least one.
        decode: tokens run one at a time after them.
        seed: the tokens are drawn from it.
        backend: whose products; the fastest Rust one's by default.
        threads: of the engine.
        numerics: ``ggml``, rounding where bitnet.cpp does, or ``pure-f32``.
        cache: of keys and values, ``f16`` or ``f32``.
        plugins: shared libraries whose backends may be named.

    Returns:
        ``phases``, prefill and decode, each with ``tokens``, ``elapsed_ns`` and ``operations``: the name and
        ``elapsed_ns`` of each. A product's time has the quantisation of what it reads in it.

    Raises:
        InputError: not a model that engines run; a context that is too short; an unknown backend.
        FileError: the file cannot be read.

    Example:
        >>> time_breakdown("model.gguf")["phases"][0]["elapsed_ns"]  # doctest: +SKIP
    """
    work = (_counted(prefill, "prefill"), decode and _counted(decode, "decode"), seed)
    run = (numerics, cache, _counted(threads, "threads"))
    found = _core.time_breakdown(os.fspath(path), work, backend, run, list(plugins))
    return TimeBreakdown(json.loads(found))


LARGEST_TOKEN = 2**32 - 1
MOST_THREADS = 1024


def _token_ids(tokens: Sequence[int]) -> list[int]:
    for index, token in enumerate(tokens):
        if not 0 <= token <= LARGEST_TOKEN:
            raise _core.InputError(f"token {token} at index {index}: expected an id of 0 to {LARGEST_TOKEN}")
    return list(tokens)


def _counted(value: int, name: str) -> int:
    most = MOST_THREADS if name == "threads" else LARGEST_TOKEN
    if not 1 <= value <= most:
        raise _core.InputError(f"{name} is {value}: expected 1 to {most}")
    return value
