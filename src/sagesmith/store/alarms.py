"""Metric alarms: each a resource whose status is its state and whose document is what DescribeAlarms shows.

Their events are their history: `created` and `document` for configurations, `status` for states, and what actions
came to as `document` events that say so.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sagesmith.arns import Arn, partition_of
from sagesmith.clock import Clock, system_clock
from sagesmith.store.queries import ListQuery, Page
from sagesmith.store.resources import AlreadyExists, Change, Changed, Missing, Resource, Resources

__all__ = ["ACTION_FAILED", "ACTION_SUCCEEDED", "Alarms", "Raised"]

KIND: Final = "alarm"
STATES: Final = ("OK", "ALARM", "INSUFFICIENT_DATA")
UNCHECKED: Final = "Unchecked: Initial alarm creation"
ACTION_SUCCEEDED: Final = "Successfully executed action "
ACTION_FAILED: Final = "Failed to execute action "
_RAISED: Final = "$raised"


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm found itself in a state that has actions: `values` are the metric's, the latest first."""

    alarm: Resource
    state: str
    actions: Sequence[str]
    values: Sequence[float] = field(default=())


class Alarms:
    """All alarms of a server. Thread-safe."""

    def __init__(self, resources: Resources, account_id: str, clock: Clock = system_clock) -> None:
        self._resources = resources
        self._account_id = account_id
        self._clock = clock

    def arn(self, region: str, name: str) -> str:
        """Return the ARN of the alarm of that name."""
        return str(Arn("cloudwatch", region, self._account_id, f"alarm:{name}", partition_of(region)))

    def put(
        self, region: str, name: str, settings: Mapping[str, Any], *, tags: Mapping[str, str] | None = None
    ) -> Resource:
        """Make an alarm, or give the one that is there other *settings*; it keeps its state then."""
        now, arn = self._clock(), self.arn(region, name)
        base = {**settings, "AlarmName": name, "AlarmArn": arn, "AlarmConfigurationUpdatedTimestamp": now}
        state = {
            "StateValue": STATES[2], "StateReason": UNCHECKED,
            "StateUpdatedTimestamp": now, "StateTransitionedTimestamp": now,
        }  # fmt: skip

        def edit(resource: Resource) -> Change:
            kept: dict[str, Any] = {
                member: resource.document[member] for member in _STATE if member in resource.document
            }
            return Change(document={**base, **kept})

        while True:
            try:
                return self._resources.update(KIND, region, name, edit, f'Alarm "{name}" updated')
            except Missing:
                try:
                    return self._resources.create(
                        KIND, region, name, arn=arn, document={**base, **state}, status=STATES[2],
                        tags=tags, why=f'Alarm "{name}" created',
                    )  # fmt: skip
                except AlreadyExists:
                    continue

    def get(self, region: str, name: str) -> Resource | None:
        """Return the alarm, or None."""
        return self._resources.get(KIND, region, name)

    def all(self) -> builtins.list[Resource]:
        """Return every alarm of every region."""
        return self._resources.with_status(KIND, STATES)

    def list(self, region: str, query: ListQuery) -> Page[Resource]:
        """Return a page of the alarms of *region*."""
        return self._resources.list(KIND, region, query)

    def delete(self, region: str, names: Iterable[str]) -> None:
        """Remove the alarms; those that are not there are no fault."""
        for name in names:
            while (alarm := self.get(region, name)) is not None:
                try:
                    self._resources.delete(alarm, why=f'Alarm "{name}" deleted')
                except Changed:
                    continue
                break

    def set_state(
        self, region: str, name: str, state: str, reason: str, data: str = "", *, version: int = 0
    ) -> bool:
        """Put the alarm into *state*; return whether that is another than before.

        Nothing is written if it is the same, or if *version* is given and is not the alarm's any more.

        Raises:
            Missing: there is no such alarm.
        """
        now, changed = self._clock(), False

        def edit(resource: Resource) -> Change | None:
            nonlocal changed
            changed = resource.status != state and version in (0, resource.version)
            if not changed:
                return None
            document = {
                **resource.document, "StateValue": state, "StateReason": reason[:1023],
                "StateUpdatedTimestamp": now, "StateTransitionedTimestamp": now,
            }  # fmt: skip
            document.pop("StateReasonData", None)
            if data:
                document["StateReasonData"] = data
            if state == "ALARM":
                document[_RAISED] = now
            return Change(state, document)

        self._resources.update(KIND, region, name, edit, reason[:1023])
        return changed

    def enable_actions(self, region: str, names: Iterable[str], enabled: bool) -> None:
        """Let the alarms perform their actions, or not; those that are not there are no fault."""
        for name in names:
            if self.get(region, name) is not None:
                self._resources.update(
                    KIND, region, name,
                    lambda resource: Change(document={**resource.document, "ActionsEnabled": enabled}),
                    f'Alarm "{name}" updated',
                )  # fmt: skip

    def note(self, region: str, name: str, what: str) -> None:
        """Write *what* an action came to into the history; it begins with one of the two words for that."""
        self._resources.update(KIND, region, name, lambda resource: Change(document=resource.document), what)

    def raised(self, region: str, names: Iterable[str], since: float) -> builtins.list[str]:
        """Return those alarms that are in state ALARM, or were put into it at or after *since*."""
        found = ((name, self.get(region, name)) for name in names)
        return [
            name
            for name, alarm in found
            if alarm is not None
            and (alarm.status == "ALARM" or alarm.document.get(_RAISED, float("-inf")) >= since)
        ]


_STATE: Final = (
    "StateValue", "StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp", _RAISED,
)  # fmt: skip
