"""Run by Python at its start in processes of a user's script: lets old names of modules be found.

Python runs only the first ``sitecustomize`` on its path, so this one runs the next.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

try:
    from sagesmith_toolkit import aliases
except ImportError:  # another Python, which does not have the toolkit
    pass
else:
    aliases.install()

for _folder in sys.path:
    _file = os.path.join(_folder, "sitecustomize.py")
    if os.path.abspath(_folder) != _HERE and os.path.isfile(_file):
        with open(_file, encoding="utf-8") as _source:
            exec(compile(_source.read(), _file, "exec"))  # noqa: S102 (as Python itself would)
        break
