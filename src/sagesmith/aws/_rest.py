"""Where REST operations keep their members: in the path, the query, the headers, the status and the body."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._model import Member, OperationModel, ServiceModel, Shape
from sagesmith.aws._timestamps import http_date, parse_timestamp
from sagesmith.aws._xml import read_scalar, scalar_text

__all__ = ["BytesBody", "RestRouter", "body_members", "read_located", "write_located"]

_LABEL: Final = re.compile(r"\{(\w+)(\+?)\}")


class BytesBody:
    """A body that is already here, as a `BodyReader`."""

    def __init__(self, data: bytes) -> None:
        self.size: int | None = len(data)
        self.trailers: Mapping[str, str] = {}
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes, b"" at the end."""
        return self._file.read(size)


class _Route:
    """One operation's path as a pattern, with what must stand in the query and the headers."""

    def __init__(self, operation: OperationModel) -> None:
        self.name = operation.name
        self.method = operation.method
        path, _, query = operation.uri.partition("?")
        self.labels = [name for name, _ in _LABEL.findall(path)]
        greedy = path.endswith("+}")
        parts, last = [], 0
        for found in _LABEL.finditer(path):
            parts.append(re.escape(path[last : found.start()]))
            parts.append("(.+)" if found.group(2) else "([^/]+)")
            last = found.end()
        parts.append(re.escape(path[last:].rstrip("/")))
        self.pattern = re.compile("".join(parts) + ("" if greedy else "/?"), re.DOTALL)
        self.literals = dict(parse_qsl(query, keep_blank_values=True))
        shape = operation.input
        required = [shape.members[name] for name in shape.required] if shape else []
        self.query_needed = frozenset(member.wire for member in required if member.location == "querystring")
        self.headers_needed = frozenset(
            member.wire.lower().encode() for member in required if member.location == "header"
        )
        # More literal text and more conditions win; so do operations that are not deprecated.
        self.weight = (
            len(_LABEL.sub("", path)),
            not greedy,
            len(self.literals),
            len(self.query_needed) + len(self.headers_needed),
            not operation.deprecated,
        )


class RestRouter:
    """Finds the operation of a REST service by method, path, query and headers."""

    def __init__(self, service: ServiceModel, preferred: Iterable[str] = ()) -> None:
        wanted = frozenset(preferred)
        routes = [_Route(operation) for operation in service.operations()]
        # Of two operations with one address (S3 has old and new names) the one that is handled wins.
        routes.sort(key=lambda route: (*route.weight, route.name in wanted), reverse=True)
        self._routes: dict[str, list[_Route]] = {}
        for route in routes:
            self._routes.setdefault(route.method, []).append(route)

    def find(
        self, method: str, path: str, query: Mapping[str, Any], headers: Mapping[bytes, bytes]
    ) -> tuple[str, dict[str, str]] | None:
        """Return the operation's name and the labels of *path* (percent-encoded), or None.

        Raises:
            WrongTypeError: a label is not UTF-8.
        """
        incomplete: tuple[_Route, re.Match[str]] | None = None
        for route in self._routes.get(method, ()):
            found = route.pattern.fullmatch(path)
            if found is None:
                continue
            if any(
                query.get(name) != text and (text or name not in query)
                for name, text in route.literals.items()
            ):
                continue
            if route.query_needed <= query.keys() and route.headers_needed <= headers.keys():
                return route.name, _labels(route, found)
            # Kept in case nothing fits better: then its missing members are the client's error.
            if incomplete is None or route.literals:
                incomplete = incomplete or (route, found)
        return (incomplete[0].name, _labels(*incomplete)) if incomplete else None


def _labels(route: _Route, found: re.Match[str]) -> dict[str, str]:
    try:
        return {
            name: unquote(text, errors="strict")
            for name, text in zip(route.labels, found.groups(), strict=True)
        }
    except UnicodeDecodeError as error:
        raise WrongTypeError("The path is not valid UTF-8.") from error


def body_members(shape: Shape) -> dict[str, Member]:
    """Return the members of *shape* that travel in the body."""
    return {name: member for name, member in shape.members.items() if member.location is None}


def read_located(
    shape: Shape, labels: Mapping[str, str], query: Mapping[str, list[str]], headers: Mapping[bytes, bytes]
) -> dict[str, Any]:
    """Return the members of *shape* that come in path, query and headers.

    Raises:
        WrongTypeError: one does not fit its shape.
    """
    value: dict[str, Any] = {}
    for name, member in shape.members.items():
        try:
            if member.location == "uri":
                text = labels.get(member.wire)
                if text is not None:
                    value[name] = read_scalar(member.shape, text)
            elif member.location == "querystring":
                found = _from_query(shape, member, query)
                if found is not None:
                    value[name] = found
            elif member.location == "header":
                data = headers.get(member.wire.lower().encode())
                if data is not None:
                    value[name] = _from_header(member.shape, _text(data))
            elif member.location == "headers":
                prefix = member.wire.lower().encode()
                metadata = {
                    _text(header[len(prefix) :]): _text(data)
                    for header, data in headers.items()
                    if header.startswith(prefix)
                }
                if metadata:
                    value[name] = metadata
        except WrongTypeError as error:
            error.path.insert(0, name)
            error.located = True
            raise
    return value


def _from_query(shape: Shape, member: Member, query: Mapping[str, list[str]]) -> Any:
    if member.shape.type == "map":
        taken = {
            other.wire
            for other in shape.members.values()
            if other.location == "querystring" and other is not member
        }
        rest = {name: texts for name, texts in query.items() if name not in taken}
        if not rest:
            return None
        if member.shape.value.shape.type == "list":
            return rest
        return {name: texts[-1] for name, texts in rest.items()}
    texts = query.get(member.wire)
    if texts is None:
        return None
    if member.shape.type == "list":
        return [read_scalar(member.shape.member.shape, text) for text in texts]
    return read_scalar(member.shape, texts[-1])


def _from_header(shape: Shape, text: str) -> Any:
    if shape.type == "list":
        return [read_scalar(shape.member.shape, part.strip()) for part in text.split(",") if part.strip()]
    return read_scalar(shape, text)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def write_located(shape: Shape, value: Mapping[str, Any]) -> tuple[int | None, list[tuple[str, str]]]:
    """Return the status (None if no member says it) and the headers that *value*'s members make."""
    status: int | None = None
    headers: list[tuple[str, str]] = []
    for name, member in shape.members.items():
        if member.location is None:
            continue
        item = value.get(name)
        if item is None:
            continue
        if member.location == "header":
            headers.append((member.wire, _header_text(member, item)))
        elif member.location == "headers":
            headers.extend((member.wire + key, str(text)) for key, text in item.items())
        elif member.location == "statusCode":
            status = int(item)
    return status, headers


def _header_text(member: Member, value: Any) -> str:
    shape = member.shape
    if shape.type == "list":
        inner = shape.member
        return ", ".join(scalar_text(inner.shape, item, inner.timestamp_format) for item in value)
    form = member.timestamp_format or shape.timestamp_format
    if shape.type == "timestamp" and form is None:
        return http_date(parse_timestamp(value))
    return scalar_text(shape, value, form)
