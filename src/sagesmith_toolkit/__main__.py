"""``python -m sagesmith_toolkit train`` and ``serve``: what the containers of frameworks run."""

from __future__ import annotations

import sys
from typing import List

__all__ = ["main"]


def main(arguments: List[str]) -> int:
    """Run *arguments* (``["train"]`` or ``["serve"]``) and return the exit code."""
    if arguments == ["train"]:
        from sagesmith_toolkit import training

        return training.main()
    if arguments == ["serve"]:
        from sagesmith_toolkit import serving

        return serving.main()
    sys.stderr.write("usage: python -m sagesmith_toolkit train|serve\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
