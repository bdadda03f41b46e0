"""Sagesmith: a machine-learning platform that people run themselves and that speaks the AWS SageMaker API."""

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0"
