"""Which service and operation a request means, on the one port that serves them all.

The credential scope of the signature names the service; X-Amz-Target, the path of RPC v2, the form field Action
or method and path name the operation. Services that sign with one name (SageMaker's runtimes do) are
told apart by target and path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._model import Catalog, OperationModel, ServiceModel
from sagesmith.aws._protocols import (
    CborProtocol,
    JsonProtocol,
    QueryProtocol,
    RestJsonProtocol,
    RestXmlProtocol,
    WireProtocol,
)
from sagesmith.aws._query import parse_fields
from sagesmith.aws._rest import RestRouter
from sagesmith.aws._s3 import S3Protocol, bucket_of_host
from sagesmith.aws._validation import Check, Validator
from sagesmith.errors import AwsError

__all__ = ["Entry", "Found", "Router", "Service"]

# Services whose signing name is not the name of their model.
_SIGNED_AS: Final[Mapping[str, str]] = {
    "monitoring": "cloudwatch",
    "tagging": "resourcegroupstaggingapi",
    "elasticloadbalancing": "elbv2",
    "states": "stepfunctions",
    "servicequotas": "service-quotas",
    "email": "ses",
    "aoss": "opensearchserverless",
    "es": "opensearch",
}
_PROTOCOLS: Final[Mapping[str, Callable[[ServiceModel], WireProtocol]]] = {
    "json": JsonProtocol,
    "query": QueryProtocol,
    "rest-json": RestJsonProtocol,
    "rest-xml": RestXmlProtocol,
    "smithy-rpc-v2-cbor": CborProtocol,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation, spoken in one protocol, with its check and the handler that was marked for it."""

    service: Service
    operation: OperationModel
    protocol: WireProtocol
    check: Check | None
    handler: Any


@dataclass(slots=True)
class Found:
    """What a request means: its entry, the labels of its path, and its query."""

    entry: Entry
    labels: Mapping[str, str]
    query: Mapping[str, list[str]]


class Service:
    """One service: its model, its protocols, its compiled operations. Thread-safe."""

    def __init__(self, model: ServiceModel, handlers: Mapping[str, Any]) -> None:
        self.model = model
        self.name = model.name
        self._handlers = handlers
        self._validator = Validator()
        self._entries: dict[tuple[str, str], Entry] = {}
        self._protocols: dict[str, WireProtocol] = {}
        self._rest: RestRouter | None = None
        self._lock = threading.RLock()

    def speaks(self, protocol: str) -> bool:
        """Whether clients may use *protocol* with the service."""
        return protocol in self.model.protocols

    @property
    def is_rest(self) -> bool:
        """Whether paths name the operations."""
        return self.speaks("rest-json") or self.speaks("rest-xml")

    def protocol(self, name: str) -> WireProtocol:
        """Return the service's protocol of that name."""
        protocol = self._protocols.get(name)
        if protocol is None:
            with self._lock:
                make = S3Protocol if self.name == "s3" else _PROTOCOLS[name]
                protocol = self._protocols.setdefault(name, make(self.model))
        return protocol

    def entry(self, operation: str, protocol: str) -> Entry:
        """Return the compiled operation.

        Raises:
            AwsError: `UnknownOperationException`.
        """
        entry = self._entries.get((operation, protocol))
        if entry is None:
            if not self.model.has_operation(operation):
                raise unknown_operation(f"{self.name} has no operation {operation[:100]!r}")
            model = self.model.operation(operation)
            check = self._validator.check(model.input) if model.input is not None else None
            entry = Entry(self, model, self.protocol(protocol), check, self._handlers.get(operation))
            self._entries[operation, protocol] = entry
        return entry

    def rest_router(self) -> RestRouter:
        """Return the service's router by method and path."""
        if self._rest is None:
            with self._lock:
                self._rest = self._rest or RestRouter(self.model, self._handlers)
        return self._rest

    def default_protocol(self) -> str | None:
        """Return a protocol to answer in when the request does not say which, or None."""
        return next((name for name in self.model.protocols if name in _PROTOCOLS), None)


def unknown_operation(why: str, status: int = 400) -> AwsError:
    """Return the answer to a request that means no known operation."""
    sentence = f"{why}. Check the endpoint and the version of your SDK."
    return AwsError("UnknownOperationException", sentence, status=status)


class Router:
    """Finds what requests mean. Models are loaded at a service's first request. Thread-safe."""

    def __init__(self, catalog: Catalog, handlers: Mapping[str, Mapping[str, Any]]) -> None:
        self._catalog = catalog
        self._handlers = handlers
        self._services: dict[str, Service] = {}
        self._targets: dict[tuple[str, bytes], Found] = {}
        self._family: list[Service] | None = None
        self._lock = threading.Lock()

    def service(self, name: str) -> Service | None:
        """Return the service that botocore calls *name*, or None."""
        service = self._services.get(name)
        if service is None:
            model = self._catalog.get(name)
            if model is None:
                return None
            service = self._services.setdefault(name, Service(model, self._handlers.get(name, {})))
        return service

    def signed_as(self, scope: str) -> Service | None:
        """Return the (first) service that signs as *scope*, or None."""
        return self.service(_SIGNED_AS.get(scope, scope))

    def preload(self) -> None:
        """Load the models of all handled services, and SageMaker's family."""
        for name in self._handlers:
            self.service(name)
        self._sagemaker_family()

    def find(
        self, scope: str, method: bytes, target: bytes, headers: Mapping[bytes, bytes], body: bytes
    ) -> Found:
        """Return what a request means that is signed for the service *scope*.

        Raises:
            AwsError: it means nothing.
            WrongTypeError: its path or form is malformed.
        """
        name = headers.get(b"x-amz-target")
        if name is not None:
            found = self._targets.get((scope, name))
            if found is None:
                entry = self._by_target(scope, name)
                found = Found(entry, {}, {})
                self._targets[scope, name] = found  # only known operations come here: bounded
            return found
        service = self.signed_as(scope)
        if service is None:
            raise unknown_operation(f"There is no service {scope[:60]!r} that Sagesmith knows")
        path, _, raw_query = target.partition(b"?")
        query = _query(raw_query)
        if headers.get(b"smithy-protocol") == b"rpc-v2-cbor" and service.speaks("smithy-rpc-v2-cbor"):
            parts = path.decode("latin-1").split("/")
            if len(parts) < 5 or parts[-4] != "service" or parts[-2] != "operation":
                raise unknown_operation("The path is not /service/NAME/operation/NAME")
            return Found(service.entry(parts[-1], "smithy-rpc-v2-cbor"), {}, query)
        if service.speaks("query"):
            actions = [parse_fields(body).get("Action")] if method == b"POST" else []
            action = next((text for text in (*actions, *query.get("Action", ())) if text), None)
            if action is None:
                raise AwsError(
                    "MissingAction",
                    "The request is missing the form field Action, which names the operation.",
                )
            return Found(service.entry(action, "query"), {}, query)
        if not service.is_rest and scope != "sagemaker":
            raise unknown_operation(f"The request to {service.name} has no header X-Amz-Target")
        return self._by_path(service, method, path, query, headers)

    def _by_target(self, scope: str, target: bytes) -> Entry:
        prefix, _, operation = target.decode("latin-1").rpartition(".")
        service = self.signed_as(scope)
        if service is None or not service.speaks("json") or service.model.target_prefix != prefix:
            raise unknown_operation(
                f"X-Amz-Target {target[:100].decode('latin-1')!r} is not an operation of {scope[:60]}"
            )
        return service.entry(operation, "json")

    def _by_path(
        self,
        service: Service,
        method: bytes,
        path: bytes,
        query: Mapping[str, list[str]],
        headers: Mapping[bytes, bytes],
    ) -> Found:
        candidates: Iterable[Service] = (service,)
        text = path.decode("latin-1")
        if service.name == "sagemaker":
            candidates = self._sagemaker_family()
        elif service.name == "s3":
            bucket = bucket_of_host(headers.get(b"host", b"").decode("latin-1"))
            if bucket is not None:
                text = f"/{bucket}{text}"
        flat = {name: texts[-1] for name, texts in query.items()}
        for candidate in candidates:
            found = candidate.rest_router().find(method.decode("latin-1"), text, flat, headers)
            if found is not None:
                protocol = "rest-xml" if candidate.speaks("rest-xml") else "rest-json"
                return Found(candidate.entry(found[0], protocol), found[1], query)
        if service.name == "s3":
            raise AwsError(
                "MethodNotAllowed", "The specified method is not allowed against this resource.", status=405
            )
        raise unknown_operation(
            f"{method.decode('latin-1')} {text[:200]} is not an operation of {service.name}", 404
        )

    def _sagemaker_family(self) -> list[Service]:
        """Return the REST services that sign as ``sagemaker``: runtime, feature store, metrics, ..."""
        if self._family is None:
            family = []
            for name in self._catalog.names("sagemaker"):
                if name != "sagemaker":
                    service = self.service(name)
                    if service is not None and service.is_rest and service.model.signing_name == "sagemaker":
                        family.append(service)
            self._family = family
        return self._family


def _query(raw: bytes) -> Mapping[str, list[str]]:
    if not raw:
        return {}
    try:
        return parse_qs(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise WrongTypeError("The query string is not valid UTF-8, percent-encoded.") from error
