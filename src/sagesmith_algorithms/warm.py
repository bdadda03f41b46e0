"""Importing this module loads what the built-in algorithms' jobs and model servers import, nearly all of it.

It is for a process that then waits for its work (see `sagesmith_toolkit.warm`), so that the work starts at once.

Numba, and the machine code of modules called ``kernels``, is not loaded here: with LLVM the process would take twice the
memory, and a job that needs it has it in less than a second. But it must lie ready, as Python's bytecode must: `__uncompiled__` says if it
does not, and `compile_missing` compiles it. That is never done on import: a job may be waiting for this process.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from sagesmith_algorithms.registry import algorithm, names

__all__ = ["compile_missing"]

_MODULES: Final = (
    "orjson",
    "pyarrow.csv",
    "scipy.sparse",
    "threadpoolctl",
    "sagesmith_algorithms.serving",
    "sagesmith_algorithms.training",
    "sagesmith_algorithms.xgboost.serving",
    "sagesmith_algorithms.xgboost.training",
    "sagesmith_toolkit.rendezvous",
    "sagesmith_toolkit.server",
)


def _is_compiled(source: Path) -> bool:
    """Return whether there is machine code of all functions of the module *source*, as it is now."""
    written = source.stat().st_mtime
    files = source.parent.glob(f"__pycache__/{source.stem}.*.nbi")
    n_kept = sum(file.stat().st_mtime >= written for file in files)
    return n_kept >= source.read_text(encoding="utf-8").count("\n@compiled(")


for _algorithm in map(algorithm, names()):
    if not _algorithm.compiles:
        _algorithm.load_libraries()
for _name in _MODULES:
    importlib.import_module(_name)

_KERNELS: Final = sorted(Path(__file__).parent.glob("*/kernels.py"))
__uncompiled__ = not all(map(_is_compiled, _KERNELS))


def compile_missing() -> None:
    """Write the machine code that is missing, for a process that may write beside the modules."""
    for file in _KERNELS:
        if not _is_compiled(file):
            importlib.import_module("sagesmith_algorithms.compiled").compile_all(
                f"{__package__}.{file.parent.name}.{file.stem}"
            )
