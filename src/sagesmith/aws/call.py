"""What a handler sees of a request: who calls, where, and the few things of HTTP that some operations need.

A handler is a method of a plain class, marked with :func:`operation`::

    class Models:
        service = "sagemaker"

        def __init__(self, resources: Resources) -> None: ...

        @operation("DescribeModel", inline=True)
        def describe_model(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]: ...

It receives the parsed and validated input (members by their model names, timestamps as float seconds since
1970, blobs as bytes, a streaming blob as :class:`BodyReader`) and returns the output's members in the same
forms; None is an output without members. Faults are raised as `AwsError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from sagesmith.arns import Arn, partition_of
from sagesmith.errors import AwsError

__all__ = [
    "Authorizer",
    "BodyReader",
    "Call",
    "Caller",
    "FileSlice",
    "Inline",
    "Key",
    "KeyFinder",
    "OperationMark",
    "marked_operations",
    "operation",
]


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that signed a request.

    `arn` is ``arn:aws:iam::{account}:user/{name}`` or ``arn:aws:sts::{account}:assumed-role/{role}/{session}``.
    """

    account: str
    arn: str
    user_id: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class Key:
    """An access key: what checks a signature, and who holds it. Temporary keys have a token and an end."""

    access_key_id: str
    secret_access_key: str
    caller: Caller
    session_token: str | None = None
    expires: float | None = None


class KeyFinder(Protocol):
    """Finds access keys. Called on the event loop for each request: it must answer from memory as a rule."""

    def __call__(self, access_key_id: str, /) -> Key | None:
        """Return the active key of that name, or None."""
        ...


class Authorizer(Protocol):
    """Decides whether a caller may do what it asks. Thread-safe; called before each handler."""

    def __call__(self, call: Call, request: Mapping[str, Any], /) -> None:
        """Return if the call is allowed.

        Raises:
            AwsError: `AccessDeniedException` (S3: `AccessDenied`), naming caller, action and resource.
        """
        ...


class BodyReader(Protocol):
    """A request body that arrives while it is read; already decoded (aws-chunked) and checked at its end.

    Only for the handler's own worker thread. `trailers` is complete after the last byte was read.
    """

    size: int | None
    trailers: Mapping[str, str]

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes (all that is left if negative), b"" at the end.

        Raises:
            ConnectionError: the client left before the end.
            AwsError: `XAmzContentSHA256Mismatch`, `SignatureDoesNotMatch` or `BadDigest`, at the end.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A response body that is *size* bytes of the file *path* from *offset*; sent without being read whole."""

    path: str
    offset: int
    size: int


@dataclass(slots=True)
class Call:
    """One authenticated request on its way to a handler.

    `headers` has lower-case names. `response_headers` is for what no model member carries.
    `endpoint_url` is the address under which the client reached the server (`https://127.0.0.1:8777`),
    `source_ip` where its connection comes from. `refused` is what the authorizer refuses of an operation on many
    things that answers for each by itself (S3's DeleteObjects), by their positions in the request.
    """

    service: str
    operation: str
    region: str
    account: str
    caller: Caller
    request_id: str
    time: float
    method: str = "POST"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    endpoint_url: str = ""
    response_headers: dict[str, str] = field(default_factory=dict)
    source_ip: str = ""
    refused: dict[int, AwsError] = field(default_factory=dict)

    @property
    def partition(self) -> str:
        """The AWS partition of the call's region."""
        return partition_of(self.region)

    def arn(self, resource: str, *, service: str | None = None) -> str:
        """Return the ARN of *resource* (such as ``model/m1``) in the call's service, region and account."""
        return str(Arn(service or self.service, self.region, self.account, resource, self.partition))


Inline: TypeAlias = "bool | Callable[[Mapping[str, Any]], bool]"
"""Whether an operation runs on the event loop, or a function that says so of its input."""


@dataclass(frozen=True, slots=True)
class OperationMark:
    """What :func:`operation` notes on a handler."""

    name: str
    inline: Inline
    record_only: bool


_MARK: Final = "__sagesmith_operation__"
_F = TypeVar("_F", bound=Callable[..., Any])


def operation(name: str, *, inline: Inline = False, record_only: bool = False) -> Callable[[_F], _F]:
    """Mark a method as the handler of operation *name* of its class's `service`.

    Args:
        name: the operation's name in botocore's model, such as ``DescribeModel``.
        inline: run on the event loop instead of a worker thread: for reads that an index answers, quicker than
            a thread switch, on a database that lies on this machine. A function of the input says for which.
        record_only: SageMaker itself only stores what this operation is given.
    """

    def mark(function: _F) -> _F:
        setattr(function, _MARK, OperationMark(name, inline, record_only))
        return function

    return mark


def marked_operations(handlers: object) -> Iterator[tuple[OperationMark, Callable[..., Any]]]:
    """Yield each marked method of *handlers*, bound, with its mark."""
    for attribute in dir(type(handlers)):
        mark = getattr(getattr(type(handlers), attribute, None), _MARK, None)
        if isinstance(mark, OperationMark):
            yield mark, getattr(handlers, attribute)
