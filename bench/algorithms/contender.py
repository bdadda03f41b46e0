"""``python -m bench.algorithms.contender ENTRY CONTENDER FOLDER QUICK``: run one contender, print what it measured."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from bench.algorithms.entry import Run, pin


def main() -> None:
    """Run the contender; what it and its libraries print goes to standard error."""
    entry, name, folder, quick = sys.argv[1:]
    out = os.dup(1)
    os.dup2(2, 1)
    pin()
    contenders = importlib.import_module(f"bench.algorithms.entries.{entry}").ENTRY.contenders
    run = Run(Path(folder), quick == "1")
    next(one for one in contenders if one.name == name).run(run)
    sys.stdout.flush()
    os.write(out, json.dumps(run.measures).encode())


if __name__ == "__main__":
    main()
