"""AWS service models, read from botocore's data files: shapes, members and operations.

Only what a server needs is kept; the documentation, most of a model's size, is dropped while loading.
The files are read directly, because importing botocore to read them costs half a second and its JSON
reader another half for SageMaker (45 ms here). Shapes are made when first asked for.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

__all__ = ["Catalog", "Member", "OperationModel", "ServiceModel", "Shape"]


class Member:
    """A member of a structure, or the element, key or value of a list or map: a shape, and how it travels.

    `name` is the model's name, `wire` the name on the wire (equal unless the model says otherwise).
    """

    __slots__ = (
        "deprecated",
        "event_header",
        "event_payload",
        "flattened",
        "location",
        "name",
        "named",
        "namespace",
        "shape_name",
        "shapes",
        "streaming",
        "timestamp_format",
        "wire",
        "xml_attribute",
    )

    def __init__(self, name: str, raw: Mapping[str, Any], shapes: ServiceModel) -> None:
        self.name = name
        self.shapes = shapes
        self.shape_name: str = raw["shape"]
        self.named: bool = "locationName" in raw
        self.wire: str = raw.get("locationName", name)
        self.location: str | None = raw.get("location")
        self.flattened: bool = bool(raw.get("flattened"))
        self.xml_attribute: bool = bool(raw.get("xmlAttribute"))
        self.namespace: Mapping[str, str] | None = raw.get("xmlNamespace")
        self.timestamp_format: str | None = raw.get("timestampFormat")
        self.streaming: bool = bool(raw.get("streaming"))
        self.event_payload: bool = bool(raw.get("eventpayload"))
        self.event_header: bool = bool(raw.get("eventheader"))
        self.deprecated: bool = bool(raw.get("deprecated"))

    @property
    def shape(self) -> Shape:
        """What the member holds."""
        return self.shapes.shape(self.shape_name)


class Shape:
    """A type of the model. Attributes that a type does not have are None or empty."""

    def __init__(self, name: str, raw: Mapping[str, Any], shapes: ServiceModel) -> None:
        self.name = name
        self.raw = raw
        self.type: str = raw["type"]
        self.min: float | None = raw.get("min")
        self.max: float | None = raw.get("max")
        self.pattern: str | None = raw.get("pattern")
        self.enum: tuple[str, ...] = tuple(raw.get("enum", ()))
        self.required: tuple[str, ...] = tuple(raw.get("required", ()))
        self.sensitive: bool = bool(raw.get("sensitive"))
        self.union: bool = bool(raw.get("union"))
        self.document: bool = bool(raw.get("document"))
        self.flattened: bool = bool(raw.get("flattened"))
        self.streaming: bool = bool(raw.get("streaming"))
        self.eventstream: bool = bool(raw.get("eventstream"))
        self.payload: str | None = raw.get("payload")
        self.location_name: str | None = raw.get("locationName")
        self.namespace: Mapping[str, str] | None = raw.get("xmlNamespace")
        self.timestamp_format: str | None = raw.get("timestampFormat")
        self.error: Mapping[str, Any] = raw.get("error", {})
        self._shapes = shapes

    @cached_property
    def members(self) -> dict[str, Member]:
        """The members of a structure, in the model's order."""
        raw = self.raw.get("members", {})
        return {name: Member(name, member, self._shapes) for name, member in raw.items()}

    @cached_property
    def member(self) -> Member:
        """The element of a list."""
        return Member("member", self.raw["member"], self._shapes)

    @cached_property
    def key(self) -> Member:
        """The key of a map."""
        return Member("key", self.raw["key"], self._shapes)

    @cached_property
    def value(self) -> Member:
        """The value of a map."""
        return Member("value", self.raw["value"], self._shapes)


class OperationModel:
    """One operation: how it is called, what goes in and out."""

    def __init__(self, name: str, raw: Mapping[str, Any], service: ServiceModel) -> None:
        self.name = name
        self.service = service
        http = raw.get("http", {})
        self.method: str = http.get("method", "POST")
        self.uri: str = http.get("requestUri", "/")
        self.status: int = int(http.get("responseCode", 200))
        self.unsigned: bool = raw.get("authtype") == "none" or raw.get("auth") == ["smithy.api#noAuth"]
        self.deprecated: bool = bool(raw.get("deprecated"))
        given, answer = raw.get("input"), raw.get("output")
        self.input: Shape | None = service.shape(given["shape"]) if given else None
        self.output: Shape | None = service.shape(answer["shape"]) if answer else None
        self.input_root: str | None = given.get("locationName") if given else None
        self.result_wrapper: str = (answer or {}).get("resultWrapper") or f"{name}Result"
        self.errors: tuple[str, ...] = tuple(error["shape"] for error in raw.get("errors", ()))

    @cached_property
    def streaming_input(self) -> Member | None:
        """The member that takes the request's body as a stream, if there is one."""
        return _streaming_member(self.input)

    @cached_property
    def event_output(self) -> Member | None:
        """The member whose shape is an event stream, if the operation answers with one."""
        if self.output is None:
            return None
        return next((member for member in self.output.members.values() if member.shape.eventstream), None)


def _streaming_member(shape: Shape | None) -> Member | None:
    if shape is None or shape.payload is None:
        return None
    member = shape.members[shape.payload]
    if member.shape.type == "blob" and (member.streaming or member.shape.streaming):
        return member
    return None


class ServiceModel:
    """One service as its model describes it. Thread-safe: what is made twice is equal."""

    def __init__(self, name: str, raw: Mapping[str, Any]) -> None:
        self.name = name
        metadata = raw["metadata"]
        self.metadata: Mapping[str, Any] = metadata
        self.protocols: tuple[str, ...] = tuple(metadata.get("protocols") or (metadata["protocol"],))
        self.signing_name: str = metadata.get("signingName") or metadata["endpointPrefix"]
        self.target_prefix: str = metadata.get("targetPrefix", "")
        self.json_version: str = metadata.get("jsonVersion", "1.0")
        self.api_version: str = metadata.get("apiVersion", "")
        self.namespace: str = metadata.get("xmlNamespace", "")
        self.query_compatible: bool = "awsQueryCompatible" in metadata
        self._operations: Mapping[str, Mapping[str, Any]] = raw["operations"]
        self._shapes: Mapping[str, Mapping[str, Any]] = raw["shapes"]
        self._made_operations: dict[str, OperationModel] = {}
        self._made_shapes: dict[str, Shape] = {}

    def shape(self, name: str) -> Shape:
        """Return the shape of that name.

        Raises:
            KeyError: there is none.
        """
        made = self._made_shapes.get(name)
        if made is None:
            made = self._made_shapes.setdefault(name, Shape(name, self._shapes[name], self))
        return made

    @property
    def operation_names(self) -> list[str]:
        """The names of all operations, sorted."""
        return sorted(self._operations)

    def has_operation(self, name: str) -> bool:
        """Whether the model knows the operation."""
        return name in self._operations

    def operation(self, name: str) -> OperationModel:
        """Return the operation of that name.

        Raises:
            KeyError: the model has no such operation.
        """
        made = self._made_operations.get(name)
        if made is None:
            made = self._made_operations.setdefault(name, OperationModel(name, self._operations[name], self))
        return made

    def operations(self) -> Iterator[OperationModel]:
        """Yield every operation."""
        for name in self._operations:
            yield self.operation(name)

    @cached_property
    def error_names(self) -> dict[str, str]:
        """The names of error shapes by shape name and by error code (they may differ)."""
        names: dict[str, str] = {}
        for name, raw in self._shapes.items():
            if raw.get("exception") or "error" in raw:
                names[name] = name
                code = raw.get("error", {}).get("code")
                if code:
                    names.setdefault(code, name)
        return names

    def error_shape(self, code: str) -> Shape | None:
        """Return the error shape that *code* (a shape's name or its error code) means, or None."""
        name = self.error_names.get(code)
        return self.shape(name) if name else None


class Catalog:
    """The service models installed: those of botocore, and the user's own as botocore finds them.

    Models are loaded at first use and kept. Thread-safe.
    """

    def __init__(self, folders: list[Path] | None = None) -> None:
        self._folders = folders if folders is not None else _data_folders()
        self._models: dict[str, ServiceModel] = {}
        self._lock = threading.Lock()

    def names(self, beginning: str = "") -> list[str]:
        """Return the names of all services that have a model and begin with *beginning*."""
        found = {
            entry.name
            for folder in self._folders
            if folder.is_dir()
            for entry in folder.iterdir()
            if entry.name.startswith(beginning) and entry.is_dir()
        }
        return sorted(name for name in found if self._file(name) is not None)

    def get(self, name: str) -> ServiceModel | None:
        """Return the newest model of the service (named as botocore names it), or None."""
        model = self._models.get(name)
        if model is not None:
            return model
        with self._lock:
            model = self._models.get(name)
            if model is None:
                file = self._file(name)
                if file is None:
                    return None
                model = self._models[name] = ServiceModel(name, _read(file))
            return model

    def _file(self, name: str) -> Path | None:
        if not name.replace("-", "").isalnum():
            return None
        best: tuple[str, Path] | None = None
        for folder in self._folders:
            for ending in ("service-2.json", "service-2.json.gz"):
                for file in (folder / name).glob(f"*/{ending}"):
                    if best is None or file.parent.name > best[0]:
                        best = (file.parent.name, file)
        return best[1] if best else None


def _data_folders() -> list[Path]:
    folders = [
        Path(part).expanduser() for part in os.environ.get("AWS_DATA_PATH", "").split(os.pathsep) if part
    ]
    folders.append(Path.home() / ".aws" / "models")
    spec = importlib.util.find_spec("botocore")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "botocore is not installed; its service models say what every request means."
        )
    folders.append(Path(spec.origin).parent / "data")
    return folders


def _read(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    raw: dict[str, Any] = orjson.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
    raw.pop("documentation", None)
    for part in (*raw["operations"].values(), *raw["shapes"].values()):
        part.pop("documentation", None)
    for shape in raw["shapes"].values():
        for member in shape.get("members", {}).values():
            member.pop("documentation", None)
    return raw
