"""From the container's environment to a served model: where the code is, what it needs, which module it is."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Callable, Mapping, Optional, Tuple

from sagesmith_toolkit import aliases, packages
from sagesmith_toolkit.failures import UserCodeError
from sagesmith_toolkit.serving.handlers import ModelError, handlers_of
from sagesmith_toolkit.serving.hung import limit_of, watch
from sagesmith_toolkit.serving.predictor import UserModel
from sagesmith_toolkit.source import place_code

if TYPE_CHECKING:
    from sagesmith_toolkit.server import Predictor

__all__ = ["find_code", "load_module", "main"]

_INSTALLED = "SAGESMITH_REQUIREMENTS_INSTALLED"


def main() -> int:
    """Serve the model below ``$SAGEMAKER_BASE_DIR`` until SIGTERM; return the exit code."""
    environ = os.environ
    base = Path(environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
    socket_path = environ.get("SAGESMITH_SOCKET", "")
    try:
        if not socket_path:
            raise ModelError("SAGESMITH_SOCKET must name the Unix socket to serve on.")
        framework = environ.get("SAGESMITH_FRAMEWORK", "")
        # TensorFlow's container has never looked at SAGEMAKER_PROGRAM, which mostly names the training script.
        code_dir, program = find_code(base, {} if framework == "tensorflow" else environ)
        _install_requirements(code_dir)
        make = functools.partial(_predictor, framework, str(base / "model"), code_dir, program)
        count = _workers(environ)
        predictor = make() if count == 1 else _pool(make, count)
    except (ModelError, UserCodeError) as error:
        print("ERROR: %s" % error, file=sys.stderr, flush=True)
        return 1
    except Exception:  # the user's code
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    from sagesmith_toolkit.server import serve

    serve(predictor, socket_path)
    return 0


def _workers(environ: Mapping[str, str]) -> int:
    text = environ.get("SAGEMAKER_MODEL_SERVER_WORKERS") or "1"
    if not text.isdigit() or int(text) < 1:
        raise ModelError("SAGEMAKER_MODEL_SERVER_WORKERS must be a number from 1, not %r." % text)
    return int(text)


def _pool(make: Callable[[], Predictor], count: int) -> Predictor:
    from sagesmith_toolkit.serving.workers import WorkerPool

    return WorkerPool(make, count)


def _predictor(framework: str, model_dir: str, code_dir: Path, program: str) -> Predictor:
    """Load the user's module and the model."""
    aliases.install()
    module, environ = load_module(code_dir, program), os.environ
    limit_s = limit_of(environ)
    predictor: Predictor
    if framework == "tensorflow":
        from sagesmith_toolkit.serving.tensorflow import TensorFlowModel

        predictor = TensorFlowModel(model_dir, module, environ)
    else:
        predictor = UserModel(model_dir, module, handlers_of(framework), environ)
    if limit_s:
        watch(predictor, limit_s)
    return predictor


def find_code(base: Path, environ: Mapping[str, str]) -> Tuple[Path, str]:
    """Return the folder of the user's code and the name of its entry point ("" if there is none).

    It is what SAGEMAKER_SUBMIT_DIRECTORY names, or the folder ``code`` of the artifact.

    Raises:
        UserCodeError: there is no such code.
    """
    in_artifact = base / "model" / "code"
    source = environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    source = source[len("file://") :] if source.startswith("file://") else source
    named = environ.get("SAGEMAKER_PROGRAM", "")
    if source and (source == "/opt/ml/model/code" or Path(source) == in_artifact):
        code_dir = in_artifact
    elif source:
        code_dir = base / "code"
        place_code(source, code_dir)
    else:
        code_dir = in_artifact
    program = named or "inference.py"
    if (code_dir / program).is_file():
        return code_dir, program
    if named and (in_artifact / named).is_file():
        return in_artifact, named
    if named:
        raise UserCodeError("There is no %s in %s, but SAGEMAKER_PROGRAM names it." % (named, code_dir))
    return code_dir, ""


def load_module(code_dir: Path, program: str) -> Optional[ModuleType]:
    """Import *program*, a file of *code_dir*, with its folder (and ``lib`` in it) on the path."""
    path = [str(folder) for folder in (code_dir, code_dir / "lib") if folder.is_dir()]
    sys.path[:0] = path
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*path, os.environ.get("PYTHONPATH", "")]))
    if not program:
        return None
    return importlib.import_module(program[:-3] if program.endswith(".py") else program)


def _install_requirements(code_dir: Path) -> None:
    """Install requirements.txt, if there is one, and go on as the Python that has it. Once."""
    if os.environ.get(_INSTALLED) or not (code_dir / "requirements.txt").is_file():
        return
    python = packages.install(code_dir)
    environ = {
        **os.environ,
        _INSTALLED: "1",
        "PATH": os.path.dirname(python) + ":" + os.environ.get("PATH", ""),
    }
    os.execve(python, [python, "-m", "sagesmith_toolkit", "serve"], environ)  # noqa: S606 (the same program)
