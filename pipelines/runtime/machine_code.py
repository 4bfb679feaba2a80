"""Compiled functions, and where their machine code is kept from one start to the next.

numba's own cache checks only whether the file that defines a function has changed. But machine code
also contains the functions that it calls and the constants that it names, from other modules: after
an update of one of them numba would run the old code, and live would differ from a replay. So the
code is kept in a directory named by a digest of everything that it can be made of:

    <root>/tickwell-<digest>/kernel.advance-pipelines.compute.kernel-88.py311.1.nbc

Another digest is another directory, so neither a process that runs an older version at the same
time nor one that is killed while it writes can give its code to another. The root is the first
directory of these that holds the code already, or can be written:

1. what NUMBA_CACHE_DIR names,
2. `__pycache__` of the package `pipelines`,
3. the user's cache directory.

Where none can be written, as in a container with a read-only file system and nothing shipped, the
functions are compiled at every start, which takes seconds and is no error.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.dispatcher import Dispatcher
from numba.misc.appdirs import AppDirs

import pipelines
import registry

logger = logging.getLogger(__name__)
SETTINGS: Any = config
njit: Any = numba.njit
"""numba's decorator; its published types leave out the option `_nrt`, which its documentation of
extensions has."""

Function = TypeVar("Function", bound=Callable[..., object])

PACKAGE = Path(pipelines.__path__[0])
"""The folder whose modules, at any depth, have compiled functions."""

PREFIX = "tickwell-"
KEPT = 8
"""Number of directories in a root that are kept, the newest: several versions may be in use."""


def compiled(
    *signatures: Any, nogil: bool = True, **options: Any
) -> Callable[[Function], Dispatcher[Function]]:
    """A decorator: the function as machine code, which runs without the GIL.

    With `nogil=False` it keeps the GIL: that is for what takes microseconds, because to give the
    GIL to another thread and to get it back takes longer. The function is compiled at once for
    `signatures` (numba's, or text), without them at its first call. Arithmetic is IEEE 754's, also
    in a division by zero, and never fast-math. The function makes no arrays: without numba's
    runtime nothing counts references, which would take two atomic operations for every column that
    is read from a tuple. `options` are numba's.
    """

    def compile_function(function: Function) -> Dispatcher[Function]:
        dispatcher = njit(nogil=nogil, error_model="numpy", _nrt=False, **options)(function)
        if SETTINGS.DISABLE_JIT:
            return cast("Dispatcher[Function]", function)
        if directory() is not None:
            dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
        for signature in signatures:
            dispatcher.compile(signature)
        if signatures:
            dispatcher.disable_compile()
        return cast("Dispatcher[Function]", dispatcher)

    return compile_function


def inlined(function: Function) -> Dispatcher[Function]:
    """A decorator: `compiled`, and copied into each compiled function that calls it.

    It is for functions that take tuples of columns: a call would pass every field of every array.
    Python cannot call it, which saves the compilation of what it would be called by.
    """
    options = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return compiled(**options)(function)


def warm_up() -> None:
    """Compile every function with signatures that is not kept yet: the next start only loads it."""
    for source in sorted(PACKAGE.rglob("*.py")):
        if f"from {__name__} import" in source.read_text("utf-8"):
            inside = source.relative_to(PACKAGE.parent).with_suffix("")
            import_module(".".join(inside.parts))


@cache
def digest() -> str:
    """A digest of everything that machine code can be made of: our sources, and the compilers.

    It is of all sources, not only those with compiled functions: any may define a constant.
    """
    found = hashlib.sha256()
    versions = (sys.version, numba.__version__, version("llvmlite"), np.__version__)
    found.update(repr(versions).encode())
    for package in (PACKAGE, *map(Path, registry.__path__)):
        for source in sorted(package.rglob("*.py")):
            content = source.read_bytes()
            found.update(f"{source.relative_to(package.parent)} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()[:16]


@cache
def directory() -> Path | None:
    """The directory of this version's machine code; None where none can be written."""
    if not Path(__file__).exists():  # packed in a zip: there are no sources to take a digest of
        return None
    candidates = [root / f"{PREFIX}{digest()}" for root in _roots()]
    for candidate in candidates:
        if _is_filled(candidate):
            return candidate
        if _is_writable(candidate):
            _prune(candidate.parent)
            return candidate
    _warn_not_kept(", ".join(map(str, candidates)))
    return None


def _roots() -> list[Path]:
    roots = [Path(SETTINGS.CACHE_DIR)] if SETTINGS.CACHE_DIR else []
    roots.append(PACKAGE / "__pycache__")
    users: Any = AppDirs("tickwell", False)  # type: ignore[no-untyped-call]
    if Path(users.user_cache_dir).is_absolute():  # it begins with "~" for a user without a home
        roots.append(Path(users.user_cache_dir))
    return roots


def _is_filled(candidate: Path) -> bool:
    try:
        return any(candidate.glob("*.nbi"))
    except OSError:
        return False


def _is_writable(candidate: Path) -> bool:
    try:
        candidate.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=candidate).close()
    except OSError:
        return False
    return True


def _prune(root: Path) -> None:
    """Remove the directories of older versions, but for the newest of them."""
    found = []
    for kept in root.glob(f"{PREFIX}*"):
        try:
            found.append((kept.stat().st_mtime, kept))
        except OSError:  # another process removed it
            continue
    for _, old in sorted(found)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


@cache
def _warn_not_kept(why: str) -> None:
    logger.warning(
        "compiled code is not kept, and every start compiles it again (%s); "
        "set NUMBA_CACHE_DIR to a directory that can be written",
        why,
    )


class _Locator(_CacheLocator):
    """Gives numba the directory, which is known to be writable."""

    def __init__(self, function: Any) -> None:
        # numba names a file by the last name of the module alone: two folders may have a `kernel`
        self._disambiguator = f"{function.__module__}-{function.__code__.co_firstlineno}"

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator:
        return cls(py_func)

    def get_cache_path(self) -> str:
        return str(directory())

    def get_source_stamp(self) -> str:
        return digest()

    def get_disambiguator(self) -> str:
        return self._disambiguator


class _Implementation(CompileResultCacheImpl):
    _locator_classes: list[Any] = [_Locator]  # noqa: RUF012


class _Cache(FunctionCache):
    """numba's cache of a function, for which neither a full disk nor a broken file is an error.

    numba prepares to compile before it looks here: it imports what it knows of Python and numpy,
    and compiles its runtime, which together is a quarter of a worker's memory. What is kept needs
    none of it, and numba prepares by itself before it compiles.
    """

    _impl_class = _Implementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception as error:  # a file that a crash cut short raises anything
            logger.warning("compiled code in %s is broken, compiling again: %r", directory(), error)
            try:
                self.flush()  # type: ignore[no-untyped-call]
            except OSError as full:
                _warn_not_kept(str(full))
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except (OSError, EOFError) as error:
            _warn_not_kept(str(error))
