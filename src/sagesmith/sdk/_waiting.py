"""Waiting for what a server does, by asking it: often where asking is cheap, seldom where it is not.

A look is worth about an eighth of the time spent: where an answer takes 3 ms the next question comes after 50 ms,
so that an event is known within 100 ms; where it takes 150 ms, after a second. AWS limits how often an account may
ask, so there the pause is at least a second, grows up to five, and doubles whenever AWS says that it is too often.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sagesmith.sdk._errors import ApiError, SdkError

if TYPE_CHECKING:
    from sagesmith.sdk._session import Session

__all__ = ["Pace", "until"]

_T = TypeVar("_T")
_LEAST_S = 0.05
_SHARE = 8.0


class Pace:
    """How long to pause between two looks."""

    def __init__(self, *, polite: bool) -> None:
        """Begin; *polite* pauses are those for AWS."""
        self._polite = polite
        self._took_s = 0.0
        self._looks = 0
        self._penalty = 1.0

    def looked(self, took_s: float) -> None:
        """Note how long a look took."""
        self._looks += 1
        self._took_s = took_s if self._looks == 1 else 0.8 * self._took_s + 0.2 * took_s
        self._penalty = max(1.0, self._penalty * 0.95)

    def refused(self) -> None:
        """Note that the server said it is asked too often."""
        self._penalty = min(16.0, self._penalty * 2)

    @property
    def pause_s(self) -> float:
        """Seconds to pause now."""
        if self._polite:
            return min(5.0, max(1.0, 0.02 * self._looks)) * self._penalty
        return max(_LEAST_S, min(_SHARE * self._took_s, 0.08)) * self._penalty


def until(
    look: Callable[[], _T],
    done: Callable[[_T], bool],
    session: Session,
    *,
    timeout_s: float | None = None,
    what: str,
    seen: Callable[[_T], None] | None = None,
) -> _T:
    """Call *look* until *done* says so of what it returned; return that.

    Args:
        look: asks the server.
        done: whether what was seen is the end.
        session: whose server is asked.
        timeout_s: at most so many seconds; None waits as long as it takes.
        what: names what is waited for, in the error.
        seen: called with everything that was seen, also the last.

    Raises:
        SdkError: it took longer than *timeout_s*.
    """
    pace = Pace(polite=session.is_aws)
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            found = look()
        except ApiError as error:
            if "Throttl" not in error.code and error.code != "TooManyRequestsException":
                raise
            pace.refused()
        else:
            pace.looked(time.monotonic() - asked)
            if seen is not None:
                seen(found)
            if done(found):
                return found
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise SdkError(f"{what} took longer than {timeout_s:g} s; it goes on, only the waiting ended.")
        time.sleep(pace.pause_s)
