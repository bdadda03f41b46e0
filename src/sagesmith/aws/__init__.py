"""The wire: AWS's protocols, signatures and HTTP, driven by botocore's service models.

A request goes down `_connection` (HTTP), `_sigv4` (who), `_router` (what), `_protocols` (its input) and
`_validation`; then `_api` runs the handler that a service registered, and the answer goes the same way up.
No service's behaviour is known here.
"""

from sagesmith.aws._api import Api
from sagesmith.aws._eventstream import encode_error, encode_message
from sagesmith.aws._exchange import Exchange, FastRoute, HttpRequest, HttpResponse
from sagesmith.aws._json import JsonText
from sagesmith.aws._limits import Limits
from sagesmith.aws._model import Catalog, OperationModel, ServiceModel, Shape
from sagesmith.aws._server import HttpServer, RawHandler, StreamHandler, SwitchingHandler
from sagesmith.aws._tunnel import Tunnel
from sagesmith.aws.call import (
    Authorizer,
    BodyReader,
    Call,
    Caller,
    FileSlice,
    Key,
    KeyFinder,
    OperationMark,
    marked_operations,
    operation,
)

__all__ = [
    "Api",
    "Authorizer",
    "BodyReader",
    "Call",
    "Caller",
    "Catalog",
    "Exchange",
    "FastRoute",
    "FileSlice",
    "HttpRequest",
    "HttpResponse",
    "HttpServer",
    "JsonText",
    "Key",
    "KeyFinder",
    "Limits",
    "OperationMark",
    "OperationModel",
    "RawHandler",
    "ServiceModel",
    "Shape",
    "StreamHandler",
    "SwitchingHandler",
    "Tunnel",
    "encode_error",
    "encode_message",
    "marked_operations",
    "operation",
]
