"""``python -m sagesmith_algorithms train`` and ``serve``: what the built-in algorithms' containers run.

`SAGESMITH_ALGORITHM` names the algorithm, `SAGEMAKER_BASE_DIR` the folder that stands for /opt/ml, and
`SAGESMITH_SOCKET` the Unix socket to serve on. The exit code is 1 for the customer's errors and 2 for others,
and the reason stands in output/failure.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.logs import info, say
from sagesmith_algorithms.registry import algorithm
from sagesmith_toolkit.environment import ConfigError, Environment, cpu_count
from sagesmith_toolkit.rendezvous import RendezvousError

if TYPE_CHECKING:
    from sagesmith_algorithms.base import Algorithm

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run *arguments* (``["train"]`` or ``["serve"]``) and return the exit code."""
    if arguments not in (["train"], ["serve"]):
        sys.stderr.write("usage: python -m sagesmith_algorithms train|serve\n")
        return 2
    _limit_threads()
    return _train() if arguments == ["train"] else _serve()


def _train() -> int:
    say("Docker entrypoint called with argument(s): train")
    environment = None
    try:
        environment = Environment.read()
        found = _algorithm()
        found.check(environment.hyperparameters)
        for sentence in found.hyperparameters.without_effect(environment.hyperparameters):
            info(sentence, "WARNING")
        found.train(environment)
    except (CustomerError, ConfigError) as error:
        return _failed(environment, f"Customer Error: {error}", 1)
    except RendezvousError as error:
        return _failed(environment, f"Algorithm Error: {error}", 1)
    except MemoryError:
        return _failed(
            environment, "Customer Error: Out of memory. Use an instance type with more memory.", 1
        )
    except Exception as error:
        traceback.print_exc()
        return _failed(environment, f"Algorithm Error: {type(error).__name__}: {error}", 2)
    return 0


def _algorithm() -> type[Algorithm]:
    found = algorithm(os.environ.get("SAGESMITH_ALGORITHM", ""))
    found.load_libraries()
    return found


def _failed(environment: Environment | None, reason: str, code: int) -> int:
    info(reason, "ERROR")
    base = environment or Environment(Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"))
    base.write_failure(reason)
    return code


def _serve() -> int:
    socket_path = os.environ.get("SAGESMITH_SOCKET", "")
    model_dir = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / "model"
    try:
        if not socket_path:
            raise CustomerError("SAGESMITH_SOCKET must name the Unix socket to serve on.")
        predictor = _algorithm().load_predictor(model_dir, os.environ)
    except CustomerError as error:
        info(f"Customer Error: {error}", "ERROR")
        return 1
    from sagesmith_toolkit.server import serve

    serve(predictor, socket_path)
    return 0


def _limit_threads() -> None:
    """Keep numerical libraries to this instance's share of the machine, also those already loaded."""
    n_cpus = cpu_count()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(n_cpus))
    if "numpy" in sys.modules and n_cpus < cpu_count(
        {}
    ):  # looking for the libraries takes tens of milliseconds
        importlib.import_module("threadpoolctl").threadpool_limits(n_cpus)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
