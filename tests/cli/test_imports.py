"""What the command line, the server, its agents and a script's launcher do not import first: each would delay every start."""

import subprocess
import sys

import pytest

LIBRARIES = frozenset(
    [
        "alembic",
        "boto3",
        "botocore",
        "cbor2",
        "certifi",
        "cryptography",
        "jinja2",
        "numba",
        "numpy",
        "pandas",
        "psutil",
        "psycopg",
        "pyarrow",
        "requests",
        "rich",
        "scipy",
        "sklearn",
        "sqlalchemy",
        "xgboost",
    ]
)
STANDARD = frozenset(
    [
        "configparser",
        "distutils",
        "email.message",
        "fractions",
        "html.entities",
        "http.client",
        "multiprocessing",
        "statistics",
        "tarfile",
        "tomllib",
        "unittest",
        "urllib.request",
        "xml.etree.ElementTree",
        "zipfile",
        "zoneinfo",
    ]
)
ASIDE = frozenset({"sagesmith.console", "sagesmith.sdk", "sagesmith_algorithms", "sagesmith_toolkit.server"})
AGENT = frozenset({"sagesmith.fleet.nursery", "sagesmith.instance.agent"})


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import sagesmith.server", LIBRARIES | STANDARD | ASIDE | AGENT | {"typer"}),
        (
            "import sagesmith.cli",
            LIBRARIES | STANDARD | ASIDE | AGENT | {"asyncio", "sagesmith.aws", "sagesmith.server", "ssl"},
        ),
        (
            "import sagesmith.fleet.nursery",
            LIBRARIES | ASIDE | {"sagesmith.aws", "sagesmith.server", "typer"},
        ),
        ("import sagesmith_toolkit.training", LIBRARIES | STANDARD | ASIDE | {"dataclasses", "socket"}),
    ],
)
def test_what_is_needed_later_is_imported_later(code: str, unwanted: frozenset[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert not unwanted & set(done.stdout.split())


def test_a_command_is_run_without_looking_at_the_others() -> None:
    code = (
        "import sys\n"
        "from sagesmith.cli import _app\n"
        "names = lambda words: sorted(_app._name(each)[0] for each in _app._only(_app.app, words).registered_commands)\n"
        "print(names(['up', '--detach']), names(['images', 'list']), len(names(['--help'])) > 10, len(names([])) > 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "['up'] [] True True"
