"""Write the types of the built-in algorithms' hyperparameters from their declarations.

The Python interface may not import the algorithms, since it is installed without them. So their declarations are
written out as types: `python -m tests.sdk.declarations` does, and a test compares.
"""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Final

from sagesmith.sdk._catalog import ALGORITHMS
from sagesmith_algorithms import registry
from sagesmith_algorithms.hyperparameters import Flag, Hyperparameter, Number, Text, Words

PLACE: Final = Path(__file__).resolve().parents[2] / "src" / "sagesmith" / "sdk" / "_hyperparameters.py"
CLASSES: Final = {
    "blazingtext": "BlazingText",
    "factorization-machines": "FactorizationMachines",
    "ipinsights": "IPInsights",
    "kmeans": "KMeans",
    "knn": "KNN",
    "lda": "LDA",
    "linear-learner": "LinearLearner",
    "pca": "PCA",
    "randomcutforest": "RandomCutForest",
    "xgboost": "XGBoost",
}


def declared(name: str) -> list[Hyperparameter]:
    """Return the hyperparameters of algorithm *name*."""
    return list(registry.algorithm(name).hyperparameters.values())


def _type(parameter: Hyperparameter) -> str:
    if isinstance(parameter, Number):
        kind = "int" if parameter.integer else "float"
    elif isinstance(parameter, Flag):
        kind = "bool"
    elif isinstance(parameter, Words):
        kind = "str | Sequence[str]"
    elif isinstance(parameter, Text) and parameter.choices:
        kind = f"Literal[{', '.join(repr(choice) for choice in parameter.choices)}]"
    else:
        kind = "str"
    if parameter.auto and kind != "str":
        kind += ' | Literal["auto"]'
    return kind


def _class(name: str) -> str:
    return CLASSES[name]


def _required() -> dict[str, tuple[str, ...]]:
    told = {name: {*a.counted, *(default for default, _ in a.defaults)} for name, a in ALGORITHMS.items()}
    return {
        name: tuple(p.name for p in declared(name) if p.required and p.name not in told[name])
        for name in CLASSES
    }


def text() -> str:
    """Return the module's text."""
    parts = [
        '"""The hyperparameters of the built-in algorithms as types: names, kinds and what each does.\n\n'
        "Written from the algorithms' declarations by `python -m tests.sdk.declarations`; not to be edited.\n"
        '"""\n\nfrom __future__ import annotations\n\n'
        "from collections.abc import Sequence\nfrom typing import Final, Literal, Required\n\n"
        "from sagesmith.sdk._settings import EstimatorSettings\n\n"
        f"__all__ = {['REQUIRED', *(f'{CLASSES[name]}Arguments' for name in sorted(CLASSES, key=_class))]!r}\n\n"
        f"REQUIRED: Final = {_required()!r}\n"
        '"""The hyperparameters without a default that the data does not tell, by algorithm."""\n',
    ]
    for name in sorted(CLASSES, key=_class):
        parameters = declared(name)
        lines = [f"\n\nclass {CLASSES[name]}Arguments(EstimatorSettings, total=False):",
                 f'    """Settings, and the hyperparameters of {name}."""\n']  # fmt: skip
        for parameter in parameters:
            attribute = parameter.name + "_" * keyword.iskeyword(parameter.name)
            kind = (
                f"Required[{_type(parameter)}]" if parameter.name in _required()[name] else _type(parameter)
            )
            lines.append(f"    {attribute}: {kind}")
            default = "" if parameter.default is None else f" Default: {_default(parameter.default)}."
            needed = " Required." if parameter.required else ""
            lines.append(f'    """{parameter.doc.replace(chr(34), chr(39))}{needed}{default}"""')
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value).replace('"', "'")


if __name__ == "__main__":
    import subprocess
    import sys

    PLACE.write_text(text(), "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(PLACE)], check=True)
