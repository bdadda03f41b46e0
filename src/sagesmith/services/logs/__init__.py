"""CloudWatch Logs: groups, streams, events, tags."""

from __future__ import annotations

from sagesmith.services.logs._events import LogEvents
from sagesmith.services.logs._groups import LogGroups
from sagesmith.services.logs._streams import LogStreams
from sagesmith.services.logs._tags import LogTags
from sagesmith.store.logs import Logs
from sagesmith.store.resources import Resources

__all__ = ["LogEvents", "LogGroups", "LogStreams", "LogTags", "handlers"]


def handlers(logs: Logs, resources: Resources) -> list[object]:
    """Return the handlers of every operation."""
    return [LogGroups(logs, resources), LogStreams(logs), LogEvents(logs), LogTags(logs, resources)]
