"""The registry's HTTP API, as `docker push` and `docker pull` speak it: OCI Distribution Specification 1.1.

Whoever asks gives user and password of `GetAuthorizationToken`. Each request is then an action of ECR on a
repository, decided by the same policies as the operations of its API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from sagesmith.aws import BodyReader, Call, HttpResponse
from sagesmith.aws.call import Key
from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.services.ecr._access import Access, Authorize, Refused
from sagesmith.services.ecr._layers import Layers
from sagesmith.services.ecr._manifests import Manifests
from sagesmith.store.registry import Registry

__all__ = ["Distribution"]

_BASE: Final = re.compile(r"/v2/?")
_MANIFEST: Final = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_UPLOADS: Final = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/?")
_UPLOAD: Final = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]+)")
_BLOB: Final = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)")
_TAGS: Final = re.compile(r"/v2/(?P<name>.+)/tags/list")


class Distribution:
    """Answers everything below ``/v2/``. Thread-safe; called in worker threads.

    Args:
        registry: the images.
        find_key: finds access keys, as the signature check does.
        authorize: decides whether a caller may do what it asks.
    """

    def __init__(
        self,
        registry: Registry,
        find_key: Callable[[str], Key | None],
        authorize: Authorize,
        *,
        account_id: str,
        clock: Clock = system_clock,
    ) -> None:
        self._access = Access(registry, find_key, authorize, account_id, clock)
        manifests, layers = Manifests(registry, self._access), Layers(registry, self._access)
        self._routes: tuple[tuple[re.Pattern[str], dict[str, Callable[..., HttpResponse]]], ...] = (
            (_BASE, {"GET": _base}),
            (_MANIFEST, {"GET": manifests.get, "PUT": manifests.put, "DELETE": manifests.delete}),
            (_UPLOADS, {"POST": layers.begin}),
            (
                _UPLOAD,
                {
                    "GET": layers.place, "PATCH": layers.append, "PUT": layers.finish, "DELETE": layers.cancel,
                },
            ),
            (_BLOB, {"GET": layers.get, "DELETE": layers.delete}),
            (_TAGS, {"GET": manifests.tags}),
        )  # fmt: skip

    def __call__(self, call: Call, body: BodyReader) -> HttpResponse:
        """Answer one request: *call* has its method, path, query and headers."""
        try:
            answer = self._answer(call, body)
        except Refused as error:
            answer = _fault(error.status, error.code, str(error), error.headers)
        except AwsError as error:
            code = "DENIED" if error.status == 403 else "UNSUPPORTED"
            answer = _fault(error.status, code, error.message, {})
        headers = {"Docker-Distribution-Api-Version": "registry/2.0", **answer.headers}
        return HttpResponse(answer.status, headers, answer.body)

    def _answer(self, call: Call, body: BodyReader) -> HttpResponse:
        path = unquote(call.path)
        for pattern, methods in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            call = replace(call, service="ecr", caller=self._access.caller(call))
            handler = methods.get("GET" if call.method == "HEAD" else call.method)
            if handler is None:
                raise Refused(405, "UNSUPPORTED", f"{call.method} is not possible here")
            return handler(call, body, **match.groupdict())
        raise Refused(404, "UNSUPPORTED", f"there is nothing at {path}")


def _base(call: Call, body: BodyReader) -> HttpResponse:
    return _json(200, {})


def _json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    body = json.dumps(content).encode()
    return HttpResponse(status, {"Content-Type": "application/json", **(headers or {})}, body)


def _fault(status: int, code: str, message: str, headers: Mapping[str, str]) -> HttpResponse:
    return _json(status, {"errors": [{"code": code, "message": message}]}, headers)
