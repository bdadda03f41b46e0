from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = str(Path(__file__).parents[2] / "src")


def run(
    tmp_path: Path, line: bytes, *modules: str, **variables: str
) -> tuple[subprocess.CompletedProcess[bytes], bytes]:
    """Run a warm process that gets *line*; return it and what it said on its descriptor."""
    reader, writer = os.pipe()
    environ = {"PYTHONPATH": SOURCE, "SAGESMITH_WARM_FD": str(writer), "LEFT": "over", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "sagesmith_toolkit.warm", *modules],
        input=line, env=environ, pass_fds=(writer,), capture_output=True, timeout=30, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        return done, said.read()


def a_job(tmp_path: Path, code: str, **more: Any) -> bytes:
    (tmp_path / "train.py").write_text(code)
    return (
        json.dumps({"argv": ["python", str(tmp_path / "train.py"), "--x", "1"], "env": {}, **more}).encode()
        + b"\n"
    )


def test_it_becomes_the_command_with_its_environment_alone(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "print(sys.argv[1:], sorted(n for n in os.environ if n != 'LC_CTYPE'), 'colorsys' in sys.modules)\n"
        "print(__name__, sys.stdin.read() == '', os.getcwd(), __import__('time').tzname[0])\n"
        "sys.exit(7)\n"
    )
    line = a_job(tmp_path, code, env={"A": "b", "TZ": "XYZ-3", "PYTHONUNBUFFERED": "1"}, cwd="/")
    done, said = run(tmp_path, line, "colorsys")
    assert said == b"ready\n"
    assert done.stdout.decode().splitlines() == [
        "['--x', '1'] ['A', 'PYTHONUNBUFFERED', 'TZ'] True",
        "__main__ True / XYZ",
    ]
    assert done.returncode == 7


def test_a_module_is_run_as_main(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import sys; print(__name__, sys.argv[1:])")
    line = json.dumps(
        {"argv": ["python", "-m", "job", "train"], "env": {"PYTHONPATH": str(tmp_path)}}
    ).encode()
    done, _ = run(tmp_path, line + b"\n")
    assert done.stdout == b"__main__ ['train']\n"
    assert done.returncode == 0


def test_an_exception_ends_it_as_it_ends_python(tmp_path: Path) -> None:
    done, _ = run(tmp_path, a_job(tmp_path, "raise KeyError('lost')"))
    assert done.returncode == 1
    assert b"KeyError: 'lost'" in done.stderr


def test_it_ends_when_nobody_sends_a_job(tmp_path: Path) -> None:
    done, said = run(tmp_path, b"")
    assert (done.returncode, done.stdout, said) == (0, b"", b"ready\n")


def test_a_module_that_is_missing_is_said_and_does_no_harm(tmp_path: Path) -> None:
    done, said = run(tmp_path, a_job(tmp_path, "print('ran')"), "no_such_module")
    assert said == b"ready\n"
    assert done.stdout == b"ran\n"
    assert b"warm: cannot import no_such_module" in done.stderr


@pytest.mark.parametrize("argv", [["python"], ["python", "-m"]])
def test_an_argv_without_a_command(tmp_path: Path, argv: list[str]) -> None:
    done, _ = run(tmp_path, json.dumps({"argv": argv, "env": {}}).encode() + b"\n")
    assert done.returncode == 1
    assert b"must be [python, -m, MODULE, ...]" in done.stderr


def test_it_says_whether_there_is_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a_module.py").write_text("")
    paths = f"{SOURCE}{os.pathsep}{tmp_path}"
    said = [
        run(tmp_path, b"", "a_module", PYTHONPATH=paths, PYTHONDONTWRITEBYTECODE=flag)[1]
        for flag in ("1", "1", "", "1")
    ]
    assert said == [b"ready uncompiled\n", b"ready uncompiled\n", b"ready\n", b"ready\n"]


def test_who_waits_compiles_nothing_but_who_is_told_to(tmp_path: Path) -> None:
    """A job would wait for it."""
    (tmp_path / "kernels.py").write_text(
        "import pathlib\n"
        "def compile_missing():\n"
        "    pathlib.Path(__file__).with_suffix('.done').touch()\n"
        "__uncompiled__ = not pathlib.Path(__file__).with_suffix('.done').exists()\n"
    )
    paths = f"{SOURCE}{os.pathsep}{tmp_path}"
    assert run(tmp_path, b"", "kernels", PYTHONPATH=paths)[1] == b"ready uncompiled\n"
    done, said = run(tmp_path, b"", "--compile", "kernels", PYTHONPATH=paths)
    assert (done.returncode, said) == (0, b"")
    assert run(tmp_path, b"", "kernels", PYTHONPATH=paths)[1] == b"ready\n"


def test_what_the_built_in_algorithms_load_beforehand(tmp_path: Path) -> None:
    """Everything a job imports, and not scikit-learn or pandas, which `xgboost` would take along."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import numpy, xgboost\n"
        "from sagesmith_algorithms.xgboost import XGBoost\n"
        "from sagesmith_algorithms.formats import csv\n"
        "import pathlib\n"
        "(batch,) = csv.read(pathlib.Path('rows.csv'), n_threads=2)\n"
        "X = numpy.arange(40.0).reshape(20, 2)\n"
        "XGBoost(num_round=2, objective='reg:squarederror').fit(X, X[:, 0]).predict(X)\n"
        "print(sorted(name for name in set(sys.modules) - before if '.' not in name))\n"
        "print([name for name in ('sklearn', 'pandas') if name in sys.modules])\n"
        "import sklearn.base\n"
    )
    (tmp_path / "rows.csv").write_text("1,2\n3,\n")
    done, _ = run(tmp_path, a_job(tmp_path, code), "sagesmith_algorithms.warm")
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == ["[]", "[]"]


def test_kmeans_loads_little() -> None:
    code = (
        "import sys\n"
        "from sagesmith_algorithms import __main__, algorithm\n"
        "algorithm('kmeans').load_libraries()\n"
        "import sagesmith_algorithms.training, sagesmith_algorithms.serving\n"
        "print([n for n in ('pandas', 'pyarrow', 'scipy', 'sklearn', 'xgboost') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)
    assert done.stdout == b"[]\n"
