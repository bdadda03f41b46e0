"""Who may come into a notebook: signed texts, made and checked with the secret of the notebook's present start.

A *ticket* is what a presigned URL carries: it works once, for some minutes. Whoever comes with one gets a *session*, as
a cookie. Both say until when they hold, and both are void once the notebook is stopped, since the next start has
another secret; a server that starts again still knows the sessions, since nothing of them is kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["TICKET_S", "Ticket", "jupyter_token", "new_session", "new_ticket", "read_ticket", "session_end"]

TICKET_S: Final = 300.0
"""How long a presigned URL works, as AWS has it."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One presigned URL: its own name, when it was made, until when it works, and how long its session lasts."""

    name: str
    issued: float
    expires: float
    session_s: int


def new_ticket(secret: str, now: float, session_s: int) -> str:
    """Return a ticket to the notebook of *secret* for a session of *session_s* seconds."""
    return _signed(secret, "ticket", [secrets.token_hex(12), now, now + TICKET_S, session_s])


def read_ticket(secret: str, text: str, now: float) -> Ticket | None:
    """Return the ticket that *text* is; None if it is none of this start of the notebook, or is too old."""
    content = _content(secret, "ticket", text)
    if content is None:
        return None
    ticket = Ticket(*content)
    return ticket if ticket.expires > now else None


def new_session(secret: str, expires: float) -> str:
    """Return a session that holds until *expires*."""
    return _signed(secret, "session", [secrets.token_hex(12), expires])


def session_end(secret: str, text: str, now: float) -> float | None:
    """Return until when the session *text* holds; None if it is none of this start, or is over."""
    content = _content(secret, "session", text)
    expires = float(content[1]) if content is not None else 0.0
    return expires if expires > now else None


def jupyter_token(secret: str) -> str:
    """Return what JupyterLab knows the server by. Neither the secret nor a session can be found from it."""
    return hmac.digest(secret.encode(), b"jupyter", hashlib.sha256).hex()


def _signed(secret: str, use: str, content: list[Any]) -> str:
    text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    return f"{text}.{_signature(secret, use, text)}"


def _content(secret: str, use: str, signed: str) -> list[Any] | None:
    text, _, signature = signed.partition(".")
    if not secret or not hmac.compare_digest(_signature(secret, use, text).encode(), signature.encode()):
        return None
    try:
        content: list[Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        return None
    return content


def _signature(secret: str, use: str, text: str) -> str:
    return hmac.digest(secret.encode(), f"{use}:{text}".encode(), hashlib.sha256).hex()
