"""The interface as a distribution of its own: it works with nothing of the server beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("sagesmith") and not (name == "sagesmith" or name.startswith("sagesmith.sdk")):
            raise ImportError("not there: " + name)
        if name.split(".")[0] in ("scipy", "sklearn", "pyarrow", "xgboost", "typer", "sqlalchemy", "numba", "orjson"):
            raise ImportError("not there: " + name)
sys.meta_path.insert(0, Refused())
import io
import pandas as pd
import sagesmith
from sagesmith import sdk
for name in sdk.__all__:
    getattr(sdk, name)
from sagesmith.sdk._tables import table_of
from sagesmith.sdk._progress import display, State
table = table_of(pd.DataFrame({"a": [1.0], "y": [0]}), target="y", what="train")
assert [len(piece) for piece in table.read()] == [1]
with display("terminal") as screen:
    screen.show(State("job", "Training", line="x", metrics={"loss": 1.0}))
print(sagesmith.__file__)
"""


def test_the_small_distribution_is_enough(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [uv, "build", "--quiet", "--wheel", ROOT / "client", "-o", tmp_path], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 500_000
    place = tmp_path / "alone"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    ran = subprocess.run(
        [sys.executable, "-c", CODE], env={"PYTHONPATH": str(place), "COLUMNS": "80"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(place / "sagesmith" / "__init__.py")
