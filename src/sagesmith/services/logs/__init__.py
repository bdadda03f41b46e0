"""CloudWatch Logs: groups, streams, events, tags."""

from sagesmith.services.logs._events import LogEvents
from sagesmith.services.logs._groups import LogGroups
from sagesmith.services.logs._streams import LogStreams
from sagesmith.services.logs._tags import LogTags

__all__ = ["LogEvents", "LogGroups", "LogStreams", "LogTags"]
