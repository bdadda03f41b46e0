"""What the engine asks of SageMaker's service model: the members of outputs and of summaries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from sagesmith.aws import ServiceModel

__all__ = ["Shapes"]


class Shapes:
    """Answers from the service model, which is loaded when first needed. Thread-safe."""

    def __init__(self, model: Callable[[], ServiceModel]) -> None:
        self._model = model
        self.output = cache(self._output)
        self.summaries = cache(self._summaries)

    def _output(self, operation: str) -> frozenset[str]:
        """Return the members of the operation's output."""
        shape = self._model().operation(operation).output
        return frozenset(shape.members) if shape is not None else frozenset()

    def _summaries(self, operation: str) -> tuple[str, tuple[str, ...]]:
        """Return the output member of a list operation that holds the summaries, and the members of one."""
        shape = self._model().operation(operation).output
        if shape is None:
            raise ValueError(f"{operation} has no output.")
        name, member = next((n, m) for n, m in shape.members.items() if m.shape.type == "list")
        return name, tuple(member.shape.member.shape.members)
