"""Handlers of the families that are only stored: made from their declaration, five operations each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sagesmith.aws.call import Call, Inline, operation
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import ResourceKind
from sagesmith.store.resources import Resource

__all__ = ["record_handlers"]


class _Records:
    service = "sagemaker"

    def __init__(self, engine: Engine, kind: ResourceKind) -> None:
        self._engine = engine
        self._kind = kind

    def _create(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        status = request.get("Status") or self._kind.first_status
        resource = self._engine.create(call, self._kind, request, request, status=status)
        return {self._kind.arn_member: resource.arn}

    def _describe(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._engine.describe(call, self._kind, request)

    def _list(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._engine.list(call, self._kind, request)

    def _update(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return self._named(call, self._engine.replace_members(call, self._kind, request))

    def _delete(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return self._named(call, self._engine.delete(call, self._kind, request))

    def _named(self, call: Call, resource: Resource) -> Mapping[str, Any] | None:
        """The answer of operations of which some families return the ARN and some nothing."""
        has_arn = self._kind.arn_member in self._engine.shapes.output(call.operation)
        return {self._kind.arn_member: resource.arn} if has_arn else None


def record_handlers(engine: Engine, kind: ResourceKind) -> object:
    """Return the handlers of *kind*: of its four or five operations."""
    members: dict[str, Any] = {}
    operations: tuple[tuple[str, Callable[..., Any], Inline], ...] = (
        (f"Create{kind.noun}", _Records._create, False),
        (f"Describe{kind.noun}", _Records._describe, True),
        (kind.list_operation, _Records._list, is_page),
        (f"Update{kind.noun}", _Records._update, False),
        (f"Delete{kind.noun}", _Records._delete, False),
    )
    for name, method, inline in operations:
        if kind.updatable or method is not _Records._update:
            members[_snake(name)] = operation(name, inline=inline, record_only=True)(_copy(method))
    made: type[_Records] = type(f"{kind.noun}Handlers", (_Records,), members)
    return made(engine, kind)


def _copy(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of its own, which carries its own mark."""

    def handler(self: _Records, call: Call, request: Mapping[str, Any]) -> Any:
        return method(self, call, request)

    return handler


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
