"""XML to and from values, by shape: S3's bodies, and the answers of Query services.

Namespaces are dropped while reading, for no two members of a model differ by them alone. Document types, and
with them entities, are refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.parsers import expat

from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._model import Member, Shape
from sagesmith.aws._timestamps import http_date, iso8601, iso8601_millis, parse_timestamp

__all__ = ["Node", "XmlWriter", "escape", "parse_xml", "read_scalar", "read_xml", "scalar_text"]

# What XML 1.0 does not allow, said so: the ranges of what it allows take 10 ms to compile.
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Node:
    """An element: its local name, attributes (names as written), children and text."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Node] = []
        self.text = ""


def parse_xml(body: bytes) -> Node:
    """Return the root of *body*.

    Raises:
        WrongTypeError: it is not well-formed XML, or declares a document type.
    """
    stack: list[Node] = [Node("", {})]
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > 100:
            raise WrongTypeError("The XML is nested too deeply.")
        text.clear()
        node = Node(name.rpartition(":")[2], attributes)
        stack[-1].children.append(node)
        stack.append(node)

    def end(_name: str) -> None:
        node = stack.pop()
        node.text = "".join(text) if not node.children else ""
        text.clear()

    def doctype(*_args: object) -> None:
        raise WrongTypeError("The XML declares a document type, which is not allowed.")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError) as error:
        raise WrongTypeError(
            f"The XML you provided was not well-formed or did not validate against our published schema: {error}."
        ) from error
    return stack[0].children[0]


def read_scalar(shape: Shape, text: str, timestamp_format: str | None = None) -> Any:
    """Return the value of a scalar that travels as *text*.

    Raises:
        WrongTypeError: *text* is not of the shape's type.
    """
    del timestamp_format  # every format is told apart by its looks
    kind = shape.type
    try:
        if kind in ("integer", "long", "short", "byte", "biginteger"):
            number = int(text)
            if not -(2**63) <= number < 2**63:
                raise ValueError("out of range")
            return number
        if kind in ("float", "double", "bigdecimal"):
            return float(text)
        if kind == "boolean":
            if text.lower() not in ("true", "false"):
                raise ValueError("neither true nor false")
            return text.lower() == "true"
        if kind == "timestamp":
            return parse_timestamp(text)
        if kind == "blob":
            return base64.b64decode(text, validate=True)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise WrongTypeError(f"'{text[:100]}' can not be converted to {kind}") from error
    if kind in ("structure", "list", "map"):
        raise WrongTypeError(f"'{text[:100]}' stands where a {kind} is expected")
    return text


def read_xml(shape: Shape, node: Node) -> Any:
    """Return the value of *shape* that *node* holds.

    Raises:
        WrongTypeError: it does not fit the shape.
    """
    if shape.type == "structure":
        return _read_structure(shape, node)
    if shape.type == "list":
        name = shape.member.wire if shape.member.named else "member"
        return [read_xml(shape.member.shape, child) for child in node.children if child.name == name]
    if shape.type == "map":
        return dict(_entry(shape, child) for child in node.children if child.name == "entry")
    if node.children:
        raise WrongTypeError(f"<{node.name}> must hold text, not elements")
    return read_scalar(shape, node.text if shape.type in ("string", "blob") else node.text.strip())


def _read_structure(shape: Shape, node: Node) -> dict[str, Any]:
    if node.text.strip():
        raise WrongTypeError(f"<{node.name}> must hold elements, not text")
    found: dict[str, list[Node]] = {}
    for child in node.children:
        found.setdefault(child.name, []).append(child)
    value: dict[str, Any] = {}
    for name, member in shape.members.items():
        if member.location is not None:
            continue
        if member.xml_attribute:
            if member.wire in node.attributes:
                value[name] = node.attributes[member.wire]
            continue
        inner = member.shape
        nodes = found.get(member.wire, ())
        try:
            if inner.type == "list" and (member.flattened or inner.flattened):
                nodes = nodes or found.get(inner.member.wire, ())
                if nodes:
                    value[name] = [read_xml(inner.member.shape, one) for one in nodes]
            elif inner.type == "map" and (member.flattened or inner.flattened):
                if nodes:
                    value[name] = dict(_entry(inner, one) for one in nodes)
            elif nodes:
                value[name] = read_xml(inner, nodes[-1])
        except WrongTypeError as error:
            error.path.insert(0, name)
            raise
    return value


def _entry(shape: Shape, node: Node) -> tuple[Any, Any]:
    key: Any = ""
    value: Any = None
    for child in node.children:
        if child.name == shape.key.wire:
            key = read_xml(shape.key.shape, child)
        elif child.name == shape.value.wire:
            value = read_xml(shape.value.shape, child)
    return key, value


def scalar_text(shape: Shape, value: Any, timestamp_format: str | None, *, millis: bool = False) -> str:
    """Return a scalar as the text that travels in XML, headers and query strings."""
    kind = shape.type
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "timestamp":
        seconds = parse_timestamp(value)
        if timestamp_format == "rfc822":
            return http_date(seconds)
        if timestamp_format == "unixTimestamp":
            return str(int(seconds)) if seconds.is_integer() else str(seconds)
        return iso8601_millis(seconds) if millis else iso8601(seconds)
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind in ("float", "double") and isinstance(value, float):
        if value != value:  # noqa: PLR0124 - only NaN differs from itself
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
    return str(value)


class XmlWriter:
    """Writes values as XML, by shape; *millis* gives all timestamps milliseconds, as S3 does."""

    def __init__(self, *, millis: bool = False) -> None:
        self._millis = millis

    def members(
        self, members: Iterable[tuple[str, Member]], value: Mapping[str, Any], out: list[str]
    ) -> None:
        """Append the elements of a structure's *members* that *value* has."""
        for name, member in members:
            item = value.get(name)
            if item is not None and not member.xml_attribute:
                self.member(member, item, out)

    def member(self, member: Member, value: Any, out: list[str], name: str | None = None) -> None:
        """Append one member's element, or elements if it is flattened."""
        shape = member.shape
        name = name or member.wire
        flattened = member.flattened or shape.flattened
        if shape.type == "list":
            element = shape.member
            if flattened:
                # The element's own name, where there is one, replaces the list's: so read all clients.
                inner = element.wire if element.named else name
                for item in value:
                    self.member(element, item, out, inner)
            else:
                inner = element.wire if element.named else "member"
                out.append(f"<{name}>")
                for item in value:
                    self.member(element, item, out, inner)
                out.append(f"</{name}>")
        elif shape.type == "map":
            entry = name if flattened else "entry"
            if not flattened:
                out.append(f"<{name}>")
            for key, item in value.items():
                out.append(f"<{entry}>")
                self.member(shape.key, key, out)
                self.member(shape.value, item, out)
                out.append(f"</{entry}>")
            if not flattened:
                out.append(f"</{name}>")
        elif shape.type == "structure":
            out.append(f"<{name}{self._attributes(shape, value)}>")
            self.members(shape.members.items(), value, out)
            out.append(f"</{name}>")
        else:
            form = member.timestamp_format or shape.timestamp_format
            text = scalar_text(shape, value, form, millis=self._millis)
            out.append(f"<{name}>{_escape(text)}</{name}>")

    def _attributes(self, shape: Shape, value: Mapping[str, Any]) -> str:
        text = ""
        if shape.namespace and shape.namespace.get("prefix"):
            text += f' xmlns:{shape.namespace["prefix"]}="{shape.namespace["uri"]}"'
        for name, member in shape.members.items():
            if member.xml_attribute and value.get(name) is not None:
                text += f' {member.wire}="{_escape(str(value[name]))}"'
        return text


def escape(text: str) -> str:
    """Return *text* as the text of an element; characters that have no form in XML 1.0 are left out."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text if text.isprintable() else _FORBIDDEN.sub("", text)


def _escape(text: str) -> str:
    # A bare carriage return would be read as a line feed.
    return escape(text).replace('"', "&quot;").replace("\r", "&#13;")
