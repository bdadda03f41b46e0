from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import sagesmith_algorithms
from sagesmith_algorithms import HyperparameterError, algorithm, names
from sagesmith_algorithms.hyperparameters import Flag, Hyperparameters, Number, Text, Words
from tests.algorithms.jobs import SOURCE

SOME = Hyperparameters(
    Number(name="k", required=True, integer=True, low=1, high=10),
    Number(name="rate", default=0.5, above=0, high=1, auto=True),
    Text(name="method", default="fast", choices=("fast", "slow")),
    Flag(name="quiet", default=False),
    Words(name="metrics", choices=("a", "b")),
    ignored=("_log_level",),
)


def test_defaults_and_types() -> None:
    values = SOME.parse({"k": "3", "metrics": "a, b", "quiet": "True", "_log_level": "x"})
    assert values == {"k": 3, "rate": 0.5, "method": "fast", "quiet": True, "metrics": ("a", "b")}


@pytest.mark.parametrize(
    ("text", "value"), [('["a","b"]', ("a", "b")), ("['a']", ("a",)), ('"b"', ("b",)), ("a,b", ("a", "b"))]
)
def test_lists(text: str, value: tuple[str, ...]) -> None:
    assert SOME.parse({"k": "1", "metrics": text})["metrics"] == value


def test_texts_may_be_json_and_numbers_python() -> None:
    assert SOME.parse({"k": 2, "method": '"slow"', "rate": "auto"}) == {
        "k": 2, "rate": "auto", "method": "slow", "quiet": False,
    }  # fmt: skip


def test_all_faults_are_reported_with_range_and_suggestion() -> None:
    with pytest.raises(HyperparameterError) as caught:
        SOME.parse(
            {"K": "3", "rate": "0", "methd": "fast", "method": "slwo", "quiet": "perhaps", "metrics": "c"}
        )
    faults = caught.value.faults
    assert len(faults) == 7
    text = str(caught.value)
    assert "'methd' is not known. Did you mean 'method'?" in text
    assert "expected a number above 0 and at most 1, or auto" in text
    assert "Did you mean 'slow'?" in text
    assert "'k' is required: an integer at least 1 and at most 10" in text


@pytest.mark.parametrize("text", ["0", "11", "1.5", "x", "nan", "inf", "1e99", ""])
def test_integers_out_of_range(text: str) -> None:
    with pytest.raises(HyperparameterError):
        SOME.parse({"k": text})


@pytest.mark.parametrize("name", names())
def test_every_algorithm_describes_itself(name: str) -> None:
    found = algorithm(name)
    assert found.name == name
    described = found.hyperparameters.describe()
    assert all(entry["Allowed"] and entry["Description"] for entry in described)
    defaults = {entry["Name"]: entry["Default"] for entry in described if entry["Default"] is not None}
    given: dict[str, Any] = {
        name: (getattr(parameter, "choices", None) or ["4"])[0]
        for name, parameter in found.hyperparameters.items()
        if parameter.required
    }
    assert found.hyperparameters.parse({**defaults, **given}).keys() >= defaults.keys()


def test_the_package_exports_what_it_says() -> None:
    assert all(hasattr(sagesmith_algorithms, name) for name in sagesmith_algorithms.__all__)
    with pytest.raises(AttributeError):
        _ = sagesmith_algorithms.Nothing


def test_importing_the_package_is_quick() -> None:
    code = "import sys, sagesmith_algorithms; print([m for m in ('numpy', 'xgboost', 'pyarrow') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
