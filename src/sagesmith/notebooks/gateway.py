"""The way from a browser into a notebook: tickets become sessions, and who has a session is led to JupyterLab.

Everything below a notebook's path comes here, and nothing of it goes on without that notebook's session. JupyterLab
knows the server by a token that is put on here; the browser's session is taken off, so that code in the notebook never
sees it. JupyterLab's own guard against other sites' requests is off for whoever has the token; so the origin of
requests that change something, and of WebSockets, is compared here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from sagesmith.clock import Clock, system_clock
from sagesmith.notebooks import _upstream as upstream
from sagesmith.notebooks.addresses import PREFIX, base_path, notebook_of
from sagesmith.notebooks.sessions import Ticket, jupyter_token, new_session, read_ticket, session_end

__all__ = ["COOKIE", "Answer", "Incoming", "NotebookGateway", "Switched"]

COOKIE: Final = "sagesmith-notebook"
_HEADER: Final = "x-sagesmith-notebook"
_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_NOT_IN: Final = _HOP | {"authorization", "content-length", "cookie", "expect", _HEADER}
_NOT_OUT: Final = _HOP | {
    "alt-svc", "clear-site-data", "date", "server", "service-worker-allowed", "set-cookie", "strict-transport-security",
}  # fmt: skip
"""What a notebook must not say for the whole address; and what the server says itself."""
_HARMLESS: Final = ("GET", "HEAD", "OPTIONS")


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
    """An answer. A body that is an iterator is sent as it comes; *cookies* are `Set-Cookie` lines."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    cookies: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Switched:
    """JupyterLab agreed to speak another protocol on *answer*'s connection; *headers* are those of its answer."""

    headers: list[tuple[str, str]]
    answer: upstream.Answer


@dataclass(frozen=True, slots=True)
class _Notebook:
    path: str
    secret: str
    token: str


class NotebookGateway:
    """Knows where notebooks answer, and lets in whom it may. On the event loop."""

    def __init__(self, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._began = clock()
        self._notebooks: dict[tuple[str, str], _Notebook] = {}
        self._used: dict[str, float] = {}

    # ---- the table ----

    def set(self, region: str, name: str, address: str, secret: str) -> None:
        """Lead those who have a session of *secret* to *address* (``unix:/path``)."""
        self._notebooks[region, name] = _Notebook(
            address.removeprefix("unix:"), secret, jupyter_token(secret)
        )

    def remove(self, region: str, name: str) -> None:
        """Lead nobody there any more; harmless if it is not known."""
        self._notebooks.pop((region, name), None)

    # ---- requests ----

    async def __call__(self, request: Incoming) -> Answer | Switched:
        """Answer *request*, which is for some notebook."""
        place = notebook_of(request.path)
        if place is None:
            return _page(404, "There is no such notebook", f"Notebooks lie at {PREFIX}REGION/NAME/.")
        notebook, base = self._notebooks.get(place), base_path(*place)
        if notebook is None:
            return _refusal(place[1])
        if not request.path.startswith(base):
            return Answer(303, {"location": base + (f"?{request.query}" if request.query else "")})
        fields = dict(parse_qsl(request.query, keep_blank_values=True))
        if request.path == base and request.method == "GET" and "authToken" in fields:
            return self._enter(place[1], base, notebook, fields)
        now = self._clock()
        cookies = _cookies(request.headers.get("cookie", ""))
        if session_end(notebook.secret, cookies.pop(COOKIE, ""), now) is None:
            return _refusal(place[1])
        switching = "websocket" in request.headers.get("upgrade", "").lower()
        if (switching or request.method not in _HARMLESS) and not _same_origin(request.headers):
            return _page(403, "From another site", "This request was sent by a page of another site.")
        return await self._pass_on(request, base, notebook, cookies, switching=switching)

    def _enter(self, name: str, base: str, notebook: _Notebook, fields: Mapping[str, str]) -> Answer:
        now = self._clock()
        ticket = read_ticket(notebook.secret, fields["authToken"], now)
        if ticket is None or not self._use(ticket, now):
            return _refusal(name)
        expires = now + ticket.session_s
        cookie = (
            f"{COOKIE}={new_session(notebook.secret, expires)}; Path={base}; Max-Age={ticket.session_s}; "
            "HttpOnly; SameSite=Lax; Secure"
        )
        rest = {key: value for key, value in fields.items() if key not in ("authToken", "view")}
        where = base + {"lab": "lab", "classic": "tree"}.get(fields.get("view", ""), "")
        location = f"{where}?{urlencode(rest)}" if rest else where
        return Answer(303, {"location": location, **_PRIVATE}, cookies=[cookie])

    def _use(self, ticket: Ticket, now: float) -> bool:
        """Note that *ticket* is used; False if it was, or if an earlier server made it, whose notes are gone."""
        self._used = {name: expires for name, expires in self._used.items() if expires > now}
        if ticket.name in self._used or ticket.issued < self._began:
            return False
        self._used[ticket.name] = ticket.expires
        return True

    async def _pass_on(
        self,
        request: Incoming,
        base: str,
        notebook: _Notebook,
        cookies: Mapping[str, str],
        *,
        switching: bool,
    ) -> Answer | Switched:
        headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_IN]
        if cookies:
            headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in cookies.items())))
        headers += [(_HEADER, notebook.token), ("x-forwarded-proto", "https")]
        if switching:
            headers += [("connection", "Upgrade"), ("upgrade", "websocket")]
        else:
            headers += [("connection", "close"), ("content-length", str(len(request.body)))]
        target = f"{request.path}?{request.query}" if request.query else request.path
        head = upstream.request_head(request.method, target, headers)
        try:
            answer = await upstream.ask(notebook.path, head, request.body)
        except upstream.UpstreamLost as error:
            return _page(
                502, "The notebook does not answer", f"{error}. If it was just started, try again soon."
            )
        out = [(name, value) for name, value in answer.headers if name not in _NOT_OUT]
        if answer.switched:
            return Switched(out, answer)
        given = [
            value for name, value in answer.headers if name == "set-cookie" and _stays_below(value, base)
        ]
        return Answer(answer.status, {**dict(out), **_FRAMED}, answer.body(), given)


_PRIVATE: Final = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
_FRAMED: Final = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}


def _refusal(name: str) -> Answer:
    return _page(
        403,
        "Not logged in",
        f"This needs a session of the notebook instance {name}, which must be InService. Open it in the console, with "
        f"`sagesmith notebook open {name}`, or with a URL of CreatePresignedNotebookInstanceUrl; each works once, "
        "for five minutes.",
    )


def _page(status: int, title: str, sentence: str) -> Answer:
    import html

    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<main><h1>{html.escape(title)}</h1><p>{html.escape(sentence)}</p></main></html>"
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        **_PRIVATE,
    }
    return Answer(status, headers, text.encode())


def _cookies(header: str) -> dict[str, str]:
    try:
        jar = SimpleCookie(header)
    except CookieError:
        return {}
    return {name: morsel.coded_value for name, morsel in jar.items()}


def _same_origin(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from a page of this host; programs that are no browsers say nothing of it."""
    origin = headers.get("origin", "")
    return not origin or urlsplit(origin).netloc == headers.get("host", "")


def _stays_below(cookie: str, base: str) -> bool:
    """Return whether a cookie of JupyterLab is for the notebook's own path alone."""
    parts: Iterable[str] = (part.strip() for part in cookie.split(";"))
    first, *attributes = parts
    paths = [part.partition("=")[2] for part in attributes if part.lower().startswith("path=")]
    domains = [part for part in attributes if part.lower().startswith("domain=")]
    below = bool(paths) and all(path.startswith(base.rstrip("/")) for path in paths)
    return below and not domains and not first.startswith(f"{COOKIE}=")
