"""A Python callable as a backend: compared with the oracle and timed like any other.

`crossval` calls it in this process. `run` measures in fresh processes, which must find it again: by module
and name if it can be imported, else as bytes that cloudpickle makes of it
(``pip install bitnet-perfgate[callables]``).
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bitnet_perfgate import _core, arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = "@python"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
MOST_PICKLED_BYTES = 8 << 20

Prepared = TypeVar("Prepared")


class Product(Protocol):
    """What a class that `backend` decorates has. It is made once, without arguments."""

    def prepare(self, weights: arrays.PackedWeights, /) -> Any:
        """Whatever products need; never timed."""

    def matmul(self, prepared: Any, x: NDArray[np.int8], /) -> NDArray[np.int32]:
        """The products of what was prepared with ``x`` ``[n, cols]``: int32 ``[n, rows]``."""


@dataclass(frozen=True, eq=False, repr=False)
class CallableBackend:
    """A Python callable as a backend, made by `backend`. Calling it computes a product."""

    name: str
    """``<its name>@python``."""
    target: Any
    """The decorated function or class."""
    matmul: Callable[[Any, NDArray[np.int8]], NDArray[np.int32]]
    """What is called with the prepared weights and the activations, and timed."""
    prepare: Callable[[arrays.PackedWeights], Any]
    """What is called before, once for each matrix, and not timed."""

    def __call__(self, weights: arrays.PackedWeights, x: NDArray[np.int8]) -> NDArray[np.int32]:
        """The product of ``weights`` with ``x``, prepared anew."""
        return self.matmul(self.prepare(weights), x)

    def __repr__(self) -> str:
        """Its name and what it calls."""
        return f"CallableBackend({self.name}: {_place(self.target)})"

    @property
    def _build(self) -> dict[str, str]:
        """What identifies it in a recording. The optimisation is that of the interpreter."""
        flags = str(sysconfig.get_config_var("CFLAGS") or "")
        levels = re.findall(r"-O(\S+)", flags)
        return {
            "compiler": sys.implementation.name,
            "version": platform.python_version(),
            "flags": f"numpy {arrays.numpy_module().__version__}",
            "optimisation": "0" if hasattr(sys, "gettotalrefcount") else "".join(levels[-1:]),
            "source_hash": code_hash(self.target),
        }

    def _prepared(
        self, format: str, shape: tuple[int, int], tile: arrays.Tile | None, packed: NDArray[np.uint8]
    ) -> Any:
        return self.prepare(arrays.PackedWeights(format, shape, packed, tile))

    def _empty(self, n: int, rows: int) -> Callable[[Any, Any], Any]:
        """A function of the same signature that computes nothing."""
        result = arrays.numpy_module().zeros((n, rows), "int32")

        def empty(_prepared: Any, _x: Any) -> Any:
            return result

        return empty


def backend(name: str) -> Callable[[Any], CallableBackend]:
    """Makes a backend of a function or class, for ``callables=`` of `crossval`, `run` and `plan`.

    A function is called with `PackedWeights` and int8 activations ``[n, cols]`` and returns the exact
    products of their codes, int32 ``[n, rows]``, without the scale. A class has ``prepare(weights)``, which
    is called once for each matrix and not timed, and ``matmul(prepared, x)``, which is given what
    ``prepare`` returned. ``x`` is a new array at each call. A callable offers integer products, on one
    thread (a library below it may start more), and whole models whose other operations are ours; everything
    else is skipped with that reason.

    Results of another type, shape or value, and exceptions, are failures of agreement that say so; nothing
    of them is timed. Times include the way from Rust to the callable, whose cost is `Result.empty_calls`.

    Args:
        name: lower-case letters, digits and ``_ . -``; the backend is called ``<name>@python``.

    Raises:
        InputError: a name that is none; what is decorated cannot be called.

    Example:
        >>> import numpy as np
        >>> @backend("by-numpy")
        ... class ByNumpy:
        ...     def prepare(self, weights):
        ...         return arrays.unpack(weights).T.astype(np.int32)
        ...
        ...     def matmul(self, prepared, x):
        ...         return x @ prepared
        >>> ByNumpy(arrays.pack(np.ones((2, 128), np.int8)), np.full((1, 128), 3, np.int8)).tolist()
        [[384, 384]]
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        expected = "expected lower-case letters, digits and _ . -, beginning with a letter or digit"
        raise _core.InputError(f"name is {name!r}, {expected}")

    def of(target: Any) -> CallableBackend:
        if not isinstance(target, type):
            if not callable(target):
                raise _core.InputError(f"{name}: {target!r} is no function and no class")
            return CallableBackend(name + SUFFIX, target, target, _as_they_are)
        methods = [getattr(target, method, None) for method in ("prepare", "matmul")]
        if not all(map(callable, methods)):
            expected = "expected the methods prepare(weights) and matmul(prepared, x)"
            raise _core.InputError(f"{name}: class {target.__qualname__}: {expected}")
        made: Product = target()
        return CallableBackend(name + SUFFIX, target, made.matmul, made.prepare)

    return of


def _as_they_are(weights: arrays.PackedWeights) -> arrays.PackedWeights:
    return weights


def checked(callables: Iterable[CallableBackend | type]) -> list[CallableBackend]:
    """The callables as a list, each named once; raises `InputError`."""
    if isinstance(callables, CallableBackend) or not isinstance(callables, Iterable):
        raise _core.InputError(f"callables: expected a list, got the single value {callables!r}")
    found: list[CallableBackend] = []
    for brought in callables:
        # To a type checker a decorated class is still that class.
        if not isinstance(brought, CallableBackend):
            expected = 'expected what @backend("name") makes'
            raise _core.InputError(f"callables: {brought!r} is no backend, {expected}")
        found.append(brought)
    names = [brought.name for brought in found]
    for name in names:
        if names.count(name) > 1:
            raise _core.InputError(f"callables: two are called {name}")
    if found:
        arrays.numpy_module()
    return found


def address(brought: CallableBackend) -> str:
    """What `found` finds it by in a fresh process, as JSON text; raises `InputError`."""
    target, hashed = brought.target, code_hash(brought.target)
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    known = {"hash": hashed, "name": brought.name}
    if module and qualname and module != "__main__" and _importable(brought, module, qualname):
        path = [str(Path(entry).absolute()) for entry in sys.path if isinstance(entry, str)]
        return json.dumps({**known, "module": module, "qualname": qualname, "path": path})
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError as error:
        raise _core.InputError(
            f"{brought.name}: run measures in fresh processes, which cannot import {_place(target)}: put it "
            "into a module of its own, or pip install bitnet-perfgate[callables]; crossval calls it here"
        ) from error
    try:
        pickled: bytes = cloudpickle.dumps(target)
    except Exception as error:
        raise _core.InputError(
            f"{brought.name}: {_place(target)} cannot be carried to a fresh process "
            f"({type(error).__name__}: {error}): put it into a module of its own"
        ) from error
    if len(pickled) > MOST_PICKLED_BYTES:
        raise _core.InputError(
            f"{brought.name}: {_place(target)} and what it refers to are {len(pickled)} bytes, expected at "
            f"most {MOST_PICKLED_BYTES}: make large data in prepare, or put it into a module of its own"
        )
    return json.dumps({**known, "pickled": base64.b64encode(pickled).decode("ascii")})


def found(name: str, address: str) -> CallableBackend:
    """The backend of that name at that address, in a fresh process. Loading it runs its code."""
    place = json.loads(address)
    if "module" in place:
        sys.path.extend(entry for entry in place["path"] if entry not in sys.path)
        target: Any = importlib.import_module(place["module"])
        for part in place["qualname"].split("."):
            target = getattr(target, part)
    else:
        import pickle

        # The process that started this one made these bytes.
        target = pickle.loads(base64.b64decode(place["pickled"]))
    brought = target if isinstance(target, CallableBackend) else backend(name.removesuffix(SUFFIX))(target)
    if code_hash(brought.target) != place["hash"]:
        raise _core.InputError(f"{_place(brought.target)} has changed since it was imported: import it anew")
    return brought


def _importable(brought: CallableBackend, module: str, qualname: str) -> bool:
    """Whether module and name lead to what was brought, or to what was decorated."""
    found: Any = sys.modules.get(module)
    if getattr(found, "__spec__", None) is None:
        return False
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is brought or found is brought.target


def _place(target: Any) -> str:
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', repr(target))}"


def code_hash(target: Any) -> str:
    """A hash of the bytecode of a function, or of a class's functions; empty where there is none."""
    # By name: a class that was carried has its functions in another order.
    functions = [of for _, of in sorted(vars(target).items())] if isinstance(target, type) else [target]
    codes = [code for function in functions if (code := getattr(function, "__code__", None))]
    if not codes:
        return ""
    digest = hashlib.sha256()
    for code in codes:
        _add_code(digest, code)
    return digest.hexdigest()


def _add_code(digest: Any, code: CodeType) -> None:
    digest.update(code.co_name.encode() + code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            # The order of a set is another one in every process.
            parts = sorted(map(repr, constant)) if isinstance(constant, frozenset) else [repr(constant)]
            digest.update("".join(parts).encode())
