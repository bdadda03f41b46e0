"""Functions compiled by Numba, once for all processes.

Numba keeps machine code beside the module, but only looks there if it may also write. A job's container may not:
its system is read-only, and it would compile for seconds what lies ready. So what is there is read in any case,
and what cannot be written is not. `compile_all` compiles what is missing, for a process that may write (see `warm`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import caching as numba_caching
from numba.core import sigutils as numba_sigutils

__all__ = ["compile_all", "compiled"]

config: Any = numba.config
config.SLP_VECTORIZE = 1  # loops of eight turns become vector instructions: scoring takes half the time

_Function = TypeVar("_Function", bound=Callable[..., Any])
caching: Any = numba_caching  # Numba has no types
sigutils: Any = numba_sigutils

_KNOWN: Final[dict[str, list[tuple[Any, tuple[str, ...]]]]] = {}


class _Beside(caching.InTreeCacheLocator):  # type: ignore[misc]
    """The folder beside the module, also one that can only be read, if it holds the module's machine code."""

    def ensure_cache_path(self) -> None:
        try:
            super().ensure_cache_path()
        except OSError:
            start = os.path.splitext(os.path.basename(self._py_file))[0] + "."
            folder = self.get_cache_path()
            files = os.listdir(folder) if os.path.isdir(folder) else ()
            if not any(file.startswith(start) and file.endswith(".nbi") for file in files):
                raise


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [  # noqa: RUF012 - as Numba declares it
        caching.UserProvidedCacheLocator,
        _Beside,
        caching.UserWideCacheLocator,
        caching.ZipCacheLocator,
    ]


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Implementation

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def compiled(*signatures: str, **options: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a function when it is first called, unless that was done before.

    Args:
        signatures: the types it will be called with, as Numba writes them, such as ``"(f4[:,::1], i8)"``.
        options: those of `numba.njit`. The interpreter's lock is released.
    """

    def decorate(function: _Function) -> _Function:
        dispatcher = numba.njit(nogil=True, **options)(function)
        with contextlib.suppress(RuntimeError):  # no place for the code: each process compiles it
            dispatcher._cache = _Cache(function)
        _KNOWN.setdefault(function.__module__, []).append((dispatcher, signatures))
        return cast("_Function", dispatcher)

    return decorate


def compile_all(module: str) -> None:
    """Compile the functions of the module called *module* for all their signatures, where that was not done yet."""
    importlib.import_module(module)
    for dispatcher, signatures in _KNOWN.get(module, ()):
        for signature in signatures:
            arguments, _ = sigutils.normalize_signature(signature)
            dispatcher.compile(tuple(arguments))
        with contextlib.suppress(
            OSError, AttributeError
        ):  # what is as new as its source need not be looked at again
            os.utime(dispatcher._cache._cache_file._index_path)
