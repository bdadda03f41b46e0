"""``python -m sagesmith_toolkit train``: a training job whose algorithm is the user's own script.

Code into its place, its requirements installed, then the entry point run with the hyperparameters as its
arguments. The exit code is the script's; if it is not 0, the reason stands in output/failure.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence

from sagesmith_toolkit import packages
from sagesmith_toolkit.environment import ConfigError, Environment
from sagesmith_toolkit.failures import ExecuteUserScriptError, UserCodeError
from sagesmith_toolkit.launchers import launch, torchrun_defaults
from sagesmith_toolkit.processes import run
from sagesmith_toolkit.script import Script
from sagesmith_toolkit.source import place_code

__all__ = ["SHIMS", "become", "main"]

SHIMS = Path(__file__).resolve().parent / "shims"
"""On the path of the script's Python: old names of libraries, see `sagesmith_toolkit.aliases`."""


def main() -> int:
    """Run the job's script and return the exit code."""
    environment: Optional[Environment] = None
    try:
        environment = Environment.read()
        _train(Script.read(environment, os.environ))
    except (UserCodeError, ConfigError) as error:
        return _failed(environment, str(error), getattr(error, "exit_code", 1))
    except Exception as error:
        import traceback

        text = "FrameworkError: %s: %s\n%s" % (type(error).__name__, error, traceback.format_exc())
        return _failed(environment, text, 1)
    (environment.base_dir / "output").mkdir(parents=True, exist_ok=True)
    (environment.base_dir / "output" / "success").touch()
    print("Reporting training SUCCESS", flush=True)
    return 0


def become(command: Sequence[str]) -> int:
    """Become *command*, with the toolkit's old names on its path and a Python that it may add packages to."""
    python = packages.make_overlay(packages.new_folder())
    packages.add_programs(python)
    environ = {**torchrun_defaults(os.environ), **os.environ}
    environ["PATH"] = str(python.parent) + os.pathsep + environ.get("PATH", "")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SHIMS), environ.get("PYTHONPATH", "")]))
    try:
        os.execvpe(command[0], list(command), environ)  # noqa: S606 (the job's own command)
    except OSError as error:
        print("cannot run %r: %s" % (command[0], error), file=sys.stderr, flush=True)
        return 127


def _train(script: Script) -> None:
    if not script.program:
        raise UserCodeError(
            "ClientError: the hyperparameter sagemaker_program is missing: it must name the script to run in "
            "%s (the SDKs set it from entry_point)." % script.code_dir
        )
    place_code(script.source, script.code_dir)
    for folder in (script.environment.model_dir, script.environment.output_data_dir):
        folder.mkdir(parents=True, exist_ok=True)
    variables = script.variables()
    python = sys.executable
    if script.is_command:
        _make_executable(script.code_dir / script.program)
    else:
        python = packages.install(script.code_dir, package=script.is_package)
    environ = _environ(script, variables, python)
    with launch(script, python, environ) as how:
        if not how.command:
            return
        _announce(script, variables, how.command)
        ended = run(how.command, script.code_dir, {**environ, **how.variables})
        if ended.code:
            raise ExecuteUserScriptError(ended.code, ended.last_lines, how.command)


def _environ(script: Script, variables: Mapping[str, str], python: str) -> Dict[str, str]:
    environ = {**os.environ, **variables}
    path = [str(script.code_dir), str(SHIMS), environ.get("PYTHONPATH", "")]
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if python != sys.executable:
        environ["PATH"] = os.path.dirname(python) + os.pathsep + environ.get("PATH", "")
    return environ


def _make_executable(path: Path) -> None:
    if not path.is_file():
        raise UserCodeError("ClientError: there is no %s in %s." % (path.name, path.parent))
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP)


def _announce(script: Script, variables: Mapping[str, str], command: Sequence[str]) -> None:
    lines = ["%s=%s" % (name, value) for name, value in variables.items()]
    text = json.dumps(script.training_env(), sort_keys=True, indent=4, default=str)
    print("Invoking user script\n\nTraining Env:\n\n%s\n\nEnvironment variables:\n" % text)
    print("\n".join(lines))
    print("\nInvoking script with the following command:\n\n%s\n\n" % " ".join(command), flush=True)


def _failed(environment: Optional[Environment], reason: str, code: int) -> int:
    print("Reporting training FAILURE\n%s" % reason, file=sys.stderr, flush=True)
    base = environment or Environment(Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"))
    base.write_failure(reason)
    return code
