"""Old names of libraries' modules, for scripts and pickles that were written for them.

An old version of a library cannot always be installed on a Python of today. A name that the library has not
any more leads to where the thing went; a name that it still has is left alone, since this finder comes last.
Nothing is imported before a script asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # each process of a script pays for what is imported here
    from types import ModuleType
    from typing import Any, Mapping, Optional

__all__ = ["ALIASES", "AliasFinder", "install"]

ALIASES: Mapping[str, str] = {
    "sklearn.externals.joblib": "joblib",
    "sklearn.externals.six": "six",
    "sklearn.cross_validation": "sklearn.model_selection",
    "sklearn.grid_search": "sklearn.model_selection",
    "sklearn.learning_curve": "sklearn.model_selection",
    "sklearn.cluster.k_means_": "sklearn.cluster._kmeans",
    "sklearn.decomposition.pca": "sklearn.decomposition._pca",
    "sklearn.ensemble.forest": "sklearn.ensemble._forest",
    "sklearn.ensemble.gradient_boosting": "sklearn.ensemble._gb",
    "sklearn.linear_model.base": "sklearn.linear_model._base",
    "sklearn.linear_model.logistic": "sklearn.linear_model._logistic",
    "sklearn.neighbors.classification": "sklearn.neighbors._classification",
    "sklearn.preprocessing.data": "sklearn.preprocessing._data",
    "sklearn.preprocessing.label": "sklearn.preprocessing._label",
    "sklearn.svm.classes": "sklearn.svm._classes",
    "sklearn.tree.tree": "sklearn.tree._classes",
}
"""Module, and what stands for it now; what is below the one is below the other."""


class AliasFinder:
    """Finds the modules of `ALIASES`. Comes last in ``sys.meta_path``.

    Once a package stands under its old name too, the import system would load what is below it a second time; so
    another one, with *below*, comes first and finds that alone.
    """

    def __init__(self, *, below: bool = False) -> None:
        self._below = below

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return how to load the module *name*, if it is an old name of another."""
        if self._target(name) is None:
            return None
        return importlib.util.spec_from_loader(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> Optional[ModuleType]:
        """Let the import system make an empty module, which `exec_module` replaces."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that is meant in the place of *module*."""
        target = self._target(module.__name__)
        if target is None:
            raise ImportError("%s is no old name of another module" % module.__name__)
        sys.modules[module.__name__] = importlib.import_module(target)

    def _target(self, name: str) -> Optional[str]:
        if not self._below:
            return ALIASES.get(name)
        for old, new in ALIASES.items():
            if name.startswith(old + ".") and getattr(sys.modules.get(old), "__name__", old) == new:
                return new + name[len(old) :]
        return None


def install() -> None:
    """Let old names be found in this process; harmless when repeated."""
    if not any(isinstance(finder, AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AliasFinder(below=True))
        sys.meta_path.append(AliasFinder())
