"""Serving a user's own model in a framework's container: ``python -m sagesmith_toolkit serve``."""

from sagesmith_toolkit.serving._main import main
from sagesmith_toolkit.serving.handlers import Handlers, ModelError
from sagesmith_toolkit.serving.predictor import UserModel

__all__ = ["Handlers", "ModelError", "UserModel", "main"]
