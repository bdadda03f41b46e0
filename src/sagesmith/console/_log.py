"""The end of a log, as pages show it: of a job or an endpoint, read further at each look."""

from __future__ import annotations

from typing import Final

from sagesmith.console._pages import fragment
from sagesmith.sdk import SdkError, Session
from sagesmith.sdk._logs import Line, LogReader

__all__ = ["LogTail"]

_SHOWN: Final = 200


class LogTail:
    """The last lines of the streams of *group* whose names begin with *prefix*.

    Args:
        session: where the log is.
        group: the log group.
        prefix: such as ``my-job/``; empty for all streams.
        name: what `sagesmith logs` calls it.
        whole: read the log from its beginning, for those who look through all lines.
    """

    def __init__(self, session: Session, group: str, prefix: str, *, name: str, whole: bool = False) -> None:
        self._reader = LogReader(session, group, prefix, last=None if whole else _SHOWN)
        self._name = name
        self._lines: list[Line] = []
        self._trouble = ""

    def read(self) -> list[Line]:
        """Return the lines that came since the last call; none where the keys may not read them."""
        try:
            new = self._reader.read()
        except SdkError as error:
            new, self._trouble = [], str(error)
        else:
            self._trouble = ""
        self._lines = (self._lines + new)[-_SHOWN:]
        return new

    def fragment(self) -> str:
        """Return the lines as a piece of HTML."""
        return fragment(
            "log.html", lines=self._lines, trouble=self._trouble, most=_SHOWN, name=self._name,
            streams=len({line.stream for line in self._lines}) > 1,
        )  # fmt: skip
