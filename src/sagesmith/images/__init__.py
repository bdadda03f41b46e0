"""What an image URI means: a built-in algorithm, a framework, or the user's own container."""

from sagesmith.images._catalog import WARM_MODULES, Image, resolve
from sagesmith.images._reference import Reference

__all__ = ["WARM_MODULES", "Image", "Reference", "resolve"]
