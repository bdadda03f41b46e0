"""``python -m sagesmith_toolkit train`` and ``serve``: what the containers of frameworks run.

``python -m sagesmith_toolkit run COMMAND...`` becomes a command of the job's own (its `ContainerEntrypoint`), with a
Python on its path into which it can install packages.
"""

from __future__ import annotations

import sys
from typing import List

__all__ = ["main"]


def main(arguments: List[str]) -> int:
    """Run *arguments* (``["train"]``, ``["serve"]``, ``["run", ...]``) and return the exit code."""
    if arguments == ["train"]:
        from sagesmith_toolkit import training

        return training.main()
    if arguments == ["serve"]:
        from sagesmith_toolkit import serving

        return serving.main()
    if arguments[:1] == ["run"] and len(arguments) > 1:
        from sagesmith_toolkit import training

        return training.become(arguments[1:])
    sys.stderr.write("usage: python -m sagesmith_toolkit train|serve|run COMMAND...\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
