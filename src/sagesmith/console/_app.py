"""The console: takes a request under its path, checks who asks, and lets a page answer.

Pages run in worker threads and call the server over HTTPS, signed with the visitor's keys, as any client would:
whatever the console shows, any client can get, and nobody sees more than his keys allow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mimetypes
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from sagesmith.console import _endpoints, _jobs, _models, _notebooks, _overview, _storage, _transforms
from sagesmith.console._http import PREFIX, Answer, Incoming, Request, path_of, redirect
from sagesmith.console._pages import FOLDER, Context, Live, Pages, render
from sagesmith.console._visits import COOKIE, Visit, Visits
from sagesmith.sdk import CredentialsRefused, NotFound, SdkError, Session

__all__ = ["Console"]

log = logging.getLogger("sagesmith.console")
_LONGEST_STREAM_S: Final = 3600.0
_ALL: Final = [
    part.pages for part in (_overview, _jobs, _models, _endpoints, _transforms, _notebooks, _storage)
]  # fmt: skip


class Console:
    """Answers every request under `PREFIX`.

    Args:
        url: the server's own address.
        ca_file: the certificate authority that its certificate is of.
        region: the region that pages show.
        coverage: returns what `sagesmith coverage` prints.
    """

    def __init__(
        self, *, url: str, ca_file: str, region: str, coverage: Callable[[], Mapping[str, Mapping[str, str]]]
    ) -> None:
        self._url, self._ca_file, self._region, self._coverage = url, ca_file, region, coverage
        self._visits = Visits()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="console")
        self._pages = Pages([route for part in _ALL for route in part.routes])

    async def __call__(self, incoming: Incoming) -> Answer:
        """Return the answer to a request."""
        request = Request(incoming)
        if request.path.startswith("/static/"):
            return _static(request.path.removeprefix("/static/"))
        secure = "; Secure"
        if request.path == "/login":
            return await self._login(request, secure)
        visit = self._visits.find(request.cookies.get(COOKIE, ""))
        if visit is None:
            if request.path.endswith("/events"):
                return Answer(401, b"", "text/plain")
            return redirect(path_of("login"))
        if request.method == "POST" and not (visit.owns(request.one("token")) and _same_origin(request)):
            return self._trouble(
                visit, request, 403, "This form is not from this visit: load the page again."
            )
        if request.path == "/logout" and request.method == "POST":
            self._visits.end(request.cookies.get(COOKIE, ""))
            answer = redirect(path_of("login"))
            answer.headers["set-cookie"] = (
                f"{COOKIE}=; Path={PREFIX}; Max-Age=0; HttpOnly; SameSite=Strict{secure}"
            )
            return answer
        found = self._pages.find(request.method, request.path)
        if found is None:
            return self._trouble(visit, request, 404, "There is no such page.")
        handler, names = found
        context = Context(request, visit, names, self._coverage)
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._pool, handler, context)
        except SdkError as error:
            status = (
                404 if isinstance(error, NotFound) else 403 if isinstance(error, CredentialsRefused) else 400
            )
            return self._trouble(visit, request, status, str(error))
        if isinstance(result, Live):
            return Answer(200, self._stream(result), "text/event-stream")
        return result

    def close(self) -> None:
        """Let no further page begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _login(self, request: Request, secure: str) -> Answer:
        if request.method != "POST":
            return render(
                "login.html", title="Log in", visit=None, here="/login", said="", wrong="", key_id=""
            )
        key_id, secret = request.one("key_id"), request.one("secret")
        if not _same_origin(request):
            return render("login.html", title="Log in", visit=None, here="/login", said="", key_id="",
                          wrong="This form was sent from another site.")  # fmt: skip
        try:
            visit = await asyncio.get_running_loop().run_in_executor(self._pool, self._visit, key_id, secret)
        except SdkError as error:
            await asyncio.sleep(0.5)  # guessing is slow
            answer = render(
                "login.html",
                title="Log in",
                visit=None,
                here="/login",
                said="",
                wrong=str(error),
                key_id=key_id,
            )
            answer.status = 403
            return answer
        answer = redirect(path_of(""))
        cookie = self._visits.begin(visit)
        answer.headers["set-cookie"] = f"{COOKIE}={cookie}; Path={PREFIX}; HttpOnly; SameSite=Strict{secure}"
        return answer

    def _visit(self, key_id: str, secret: str) -> Visit:
        import boto3

        if not key_id or not secret:
            raise SdkError("Give both the access key and its secret.")
        boto = boto3.Session(key_id, secret, region_name=self._region)
        session = Session(
            boto,
            endpoint_url=self._url, region=self._region, ca_bundle=self._ca_file,
        )  # fmt: skip
        arn = session.identity()["Arn"]
        return Visit(session, boto, arn.rpartition(":")[2], key_id)

    def _trouble(self, visit: Visit, request: Request, status: int, sentence: str) -> Answer:
        if request.path.endswith("/events"):
            return Answer(status, sentence.encode(), "text/plain")
        answer = render(
            "trouble.html",
            title=HTTPStatus(status).phrase,
            visit=visit,
            here=request.path,
            said="",
            sentence=sentence,
        )
        answer.status = status
        return answer

    async def _stream(self, live: Live) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + _LONGEST_STREAM_S
        before: dict[str, str] = {}
        while loop.time() < end:
            try:
                fragments, last = await loop.run_in_executor(self._pool, live.look)
            except SdkError as error:
                yield _event("trouble", {"sentence": str(error)})
                return
            except RuntimeError:  # the pool is closed: the server ends
                return
            changed = {name: text for name, text in fragments.items() if before.get(name) != text}
            before |= changed
            yield _event("update", changed) if changed else b": still here\n\n"
            if last:
                yield _event("done", {})
                return
            await asyncio.sleep(live.pause_s)


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _same_origin(request: Request) -> bool:
    """Return whether a form comes from a page of this host, as far as the browser tells."""
    origin = request.headers.get("origin", "")
    return not origin or urlsplit(origin).netloc == request.headers.get("host", "")


def _static(name: str) -> Answer:
    with contextlib.suppress(OSError):
        path = FOLDER / "static" / name
        if path.parent == FOLDER / "static" and path.is_file():
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            return Answer(200, path.read_bytes(), kind, {"cache-control": "max-age=300"})
    return Answer(404, b"There is no such file.", "text/plain")
