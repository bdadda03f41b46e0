"""`python -m bench [PART...]`: measure what is released, and print one table. Progress goes to standard error."""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import os
import sys

from bench import release
from bench.environments import ROOT
from bench.report import Row, machine, progress, render, to_json

PARTS = ("serving", "training", "transform", "environments", "algorithms", "control", "sdk")
MODULES = {"environments": "bench.images"}


def main() -> int:
    """Run the chosen parts; a part that fails is told and does not take the others along."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"what to measure: {', '.join(PARTS)}; all if none. algorithms/NAME is one of the algorithms, serving/NAME xgboost, script or many",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved rounds; the median counts (default 3)"
    )
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="seconds of load in each measurement (default 4)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round on small data: a check, no result"
    )
    parser.add_argument(
        "--sources", action="store_true", help="measure the sources as they are, not a release built of them"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    unknown = sorted({part.partition("/")[0] for part in options.parts} - set(PARTS))
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.sources:
        # The peers were compiled to bytecode by their installer.
        compileall.compile_dir(ROOT / "src", quiet=1)
    elif not release.is_here():
        python = release.python()
        os.execv(python, [python, "-m", "bench", *sys.argv[1:]])
    rows: list[Row] = []
    failed = False
    where = machine() | {"gateway": "compiled" if release.is_compiled() else "interpreted"}
    for part in options.parts or PARTS:
        progress(part)
        name, _, one = part.partition("/")
        only = {"only": one} if one else {}
        try:
            rows += importlib.import_module(MODULES.get(name, f"bench.{name}")).run(
                options.rounds, options.seconds, options.quick, **only
            )
        except Exception as error:  # one part's trouble must not lose an hour's figures of the others
            failed = True
            progress(f"{part} failed: {type(error).__name__}: {error}")
    print(json.dumps(to_json(rows, where), indent=2) if options.json else render(rows, where))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
