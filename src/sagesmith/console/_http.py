"""What a page gets and answers: requests with their form, answers with the headers that keep browsers safe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import Final, Protocol
from urllib.parse import parse_qs, quote

__all__ = ["PREFIX", "Answer", "Incoming", "Request", "path_of", "redirect"]

PREFIX: Final = "/_sagesmith/console"
"""Where the console lies. No bucket can have such a name, so that no S3 address is hidden by it."""

_SAFE: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


class Incoming(Protocol):
    """A request as the server hands it over; header names are lower-case, the path is percent-encoded."""

    @property
    def method(self) -> str:
        """Such as ``GET``."""

    @property
    def path(self) -> str:
        """The path as sent."""

    @property
    def query(self) -> str:
        """What stands behind the question mark."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    @property
    def body(self) -> bytes:
        """The whole body."""


@dataclass(slots=True)
class Answer:
    """An answer. A body that is an iterator is sent as it comes."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = "text/html; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        """Return the headers, with those that every answer has."""
        return {**_SAFE, "content-type": self.content_type, **self.headers}


class Request:
    """A request, its parts taken apart when they are asked for."""

    def __init__(self, incoming: Incoming) -> None:
        self.method = incoming.method
        self.headers = incoming.headers
        self.path = incoming.path.removeprefix(PREFIX) or "/"
        self._query, self._body = incoming.query, incoming.body

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The fields of the query."""
        return parse_qs(self._query, keep_blank_values=True)

    @cached_property
    def form(self) -> dict[str, list[str]]:
        """The fields of a form."""
        return parse_qs(self._body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)

    def one(self, name: str, default: str = "") -> str:
        """Return the first value of a field of the query or the form."""
        found = self.form.get(name) if self.method == "POST" else self.query.get(name)
        return found[0].strip() if found else default

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies."""
        try:
            jar = SimpleCookie(self.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in jar.items()}


def path_of(*parts: str, **query: str) -> str:
    """Return the path of a page; *parts* and *query* are quoted."""
    path = "/".join([PREFIX, *(quote(part, safe="") for part in parts)])
    more = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
    return f"{path}?{more}" if more else path


def redirect(where: str) -> Answer:
    """Return an answer that sends the browser to *where*."""
    return Answer(303, headers={"location": where})
