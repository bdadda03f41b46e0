"""What an image URI means: a built-in algorithm, a framework, or the user's own container."""

from sagesmith.images._catalog import WARM_MODULES, Image, metric_definitions, resolve
from sagesmith.images._environments import (
    BuildFailed,
    Built,
    Environments,
    PythonEnvironment,
    Use,
)
from sagesmith.images._recipes import notebook as notebook_environment
from sagesmith.images._reference import Reference
from sagesmith.images._script_mode import code_uri, for_serving, for_training

__all__ = [
    "WARM_MODULES",
    "BuildFailed",
    "Built",
    "Environments",
    "Image",
    "PythonEnvironment",
    "Reference",
    "Use",
    "code_uri",
    "for_serving",
    "for_training",
    "metric_definitions",
    "notebook_environment",
    "resolve",
]
