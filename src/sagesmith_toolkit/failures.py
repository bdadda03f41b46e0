"""How a user's code fails, in the words of SageMaker's containers: what becomes a job's FailureReason.

Its first 1024 characters are all that a job keeps. So the last lines of what the command said come first, and
the command after them, both cut to fit.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Optional, Sequence

__all__ = ["ExecuteUserScriptError", "InstallRequirementsError", "LastLines", "UserCodeError"]

_MESSAGE_CHARACTERS = 640
_COMMAND_CHARACTERS = 240


class UserCodeError(Exception):
    """The user's code or what it asks for is at fault. `exit_code` is the container's."""

    exit_code = 1


class CommandFailed(UserCodeError):
    """A command of the user's ended with an exit code that is not 0."""

    def __init__(self, exit_code: int, message: str, command: Sequence[str]) -> None:
        self.exit_code = exit_code
        hint = "OutOfMemory: Process killed by SIGKILL (signal 9)\n" if exit_code == 137 else ""
        message = hint + message.strip()
        if len(message) > _MESSAGE_CHARACTERS:
            message = "..." + message[3 - _MESSAGE_CHARACTERS :]
        line = " ".join(command)
        if len(line) > _COMMAND_CHARACTERS:
            line = line[: _COMMAND_CHARACTERS - 3] + "..."
        super().__init__(
            '%s:\nExitCode %d\nErrorMessage "%s"\nCommand "%s"'
            % (type(self).__name__, exit_code, message, line)
        )


class ExecuteUserScriptError(CommandFailed):
    """The entry point failed."""


class InstallRequirementsError(CommandFailed):
    """What requirements.txt or setup.py asks for cannot be installed."""


class LastLines:
    """Keeps the end of what a command writes: from its last traceback on, if there is one."""

    def __init__(self, lines: int = 40) -> None:
        self._lines: Deque[str] = deque(maxlen=lines)
        self._traceback: Optional[Deque[str]] = None

    def add(self, line: str) -> None:
        """Take the next line, without its end."""
        if line.startswith("Traceback (most recent call last)"):
            self._traceback = deque(maxlen=self._lines.maxlen)
        (self._lines if self._traceback is None else self._traceback).append(line)

    @property
    def text(self) -> str:
        """The lines that were kept."""
        return "\n".join(self._lines if self._traceback is None else self._traceback).strip()
