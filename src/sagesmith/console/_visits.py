"""Who is logged in: a random cookie names a visit, which holds the keys in this process's memory alone.

A restart of the server forgets all visits. The cookie cannot be read by scripts and is not sent along from other
sites; every form carries the visit's own token besides.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import boto3

    from sagesmith.sdk import Session

__all__ = ["COOKIE", "Visit", "Visits"]

COOKIE: Final = "sagesmith_console"
_IDLE_S: Final = 8 * 3600.0
_MOST: Final = 1000


@dataclass(slots=True)
class Visit:
    """One login: `session` makes calls with its keys, `token` must come with every form."""

    session: Session
    boto: boto3.Session
    name: str
    key_id: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    seen: float = field(default_factory=time.monotonic)

    hosts: dict[str, Session] = field(default_factory=dict)

    def known_as(self, host: str) -> Session:
        """Return a session whose URLs name the server as the browser does: a signature holds for one name alone."""
        from sagesmith.sdk import Session

        if not host or host == urlsplit(self.session.url).netloc:
            return self.session
        if host not in self.hosts:
            self.hosts[host] = Session(self.boto, endpoint_url=f"https://{host}", region=self.session.region)
        return self.hosts[host]

    def owns(self, token: str) -> bool:
        """Return whether *token* is this visit's."""
        return hmac.compare_digest(token.encode(), self.token.encode())


class Visits:
    """The visits by cookie. Thread-safe; a visit ends after eight hours without a request."""

    def __init__(self) -> None:
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def begin(self, visit: Visit) -> str:
        """Keep *visit* and return its cookie."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            now = time.monotonic()
            for old in [c for c, v in self._visits.items() if now - v.seen > _IDLE_S]:
                del self._visits[old]
            if len(self._visits) >= _MOST:
                del self._visits[min(self._visits, key=lambda c: self._visits[c].seen)]
            self._visits[cookie] = visit
        return cookie

    def find(self, cookie: str) -> Visit | None:
        """Return the visit of *cookie*, or None."""
        with self._lock:
            visit = self._visits.get(cookie)
            now = time.monotonic()
            if visit is None or now - visit.seen > _IDLE_S:
                self._visits.pop(cookie, None)
                return None
            visit.seen = now
            return visit

    def end(self, cookie: str) -> None:
        """Forget the visit of *cookie*."""
        with self._lock:
            self._visits.pop(cookie, None)
