"""Scaling: alarms, schedules and limits in, changes of capacity out, each written down as an activity.

What is scaled is somebody else's: a :class:`Capacity` says how much there is and takes the wish for another number.
While an earlier wish is being fulfilled nothing is changed; an alarm that lasts calls again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol

from sagesmith.background import Background
from sagesmith.clock import Clock, system_clock
from sagesmith.lifecycle.scaling import within
from sagesmith.lifecycle.schedule import Schedule
from sagesmith.scaling._policies import cooldown_of, is_low_alarm, notes_of, wanted_by
from sagesmith.store.alarms import Alarms, Raised
from sagesmith.store.resources import Resource
from sagesmith.store.scaling import NOTES, POLICY, Scaling, Target
from sagesmith.store.threads import in_thread

__all__ = ["Capacity", "Scaler"]

_TICK_S: Final = 0.5
_log = logging.getLogger(__name__)


class Capacity(Protocol):
    """What can be scaled. Called in worker threads."""

    def read(self, region: str, resource_id: str) -> tuple[int, bool] | None:
        """Return how many there should be, and whether they all are there; None if there is no such resource."""
        ...

    def change(self, region: str, resource_id: str, count: int) -> None:
        """Ask for *count*.

        Raises:
            AwsError: that cannot be done now, or at all.
        """
        ...


class Scaler:
    """Drives all scalable targets. On the event loop; the database in threads.

    Args:
        capacity: by service namespace and dimension, what is scaled.
    """

    def __init__(
        self,
        scaling: Scaling,
        alarms: Alarms,
        capacity: Mapping[tuple[str, str], Capacity],
        *,
        clock: Clock = system_clock,
    ) -> None:
        self._scaling = scaling
        self._alarms = alarms
        self._capacity = capacity
        self._clock = clock
        self._lock = asyncio.Lock()
        self._work = Background(_log, "a step of scaling failed")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedules: dict[str, tuple[float, Schedule]] = {}

    async def start(self) -> None:
        """Take up what an earlier server began, and look at schedules from now on."""
        self._loop = asyncio.get_running_loop()
        for activity in await in_thread(self._scaling.in_progress):
            self._spawn(self._fulfil(activity))
        self._spawn(self._run())

    async def close(self) -> None:
        """Stop; activities in progress go on with the next server."""
        self._loop = None
        await asyncio.gather(*self._work.cancel(), return_exceptions=True)

    def notify(self, target: Target, cause: str) -> None:
        """Bring *target* within its limits: they were changed. Thread-safe, returns at once."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._limit(target, cause)))

    async def act(self, raised: Raised, action: str) -> None:
        """Do what the policy with the ARN *action* wants when this alarm calls.

        Raises:
            LookupError: there is no such policy, or nothing that it could scale.
        """
        policy = await in_thread(self._scaling.by_arn, action)
        if policy is None or policy.kind != POLICY:
            raise LookupError("There is no scaling policy with this ARN.")
        target = Target.of(policy.region, policy.document)
        async with self._lock:
            found = await in_thread(self._scaling.target, target)
            present = await in_thread(self._read, target)
            if found is None or present is None:
                raise LookupError(f"{target.resource_id} does not exist, or is no scalable target any more.")
            current, complete = present
            if not complete:
                return
            policy = await in_thread(self._scaling.by_arn, action) or policy
            wanted = wanted_by(policy.document, raised, current, self._clock())
            if wanted is None:
                return
            wanted = within(wanted, found.document["MinCapacity"], found.document["MaxCapacity"])
            if wanted == current or self._suspended(found, wanted < current):
                return
            if wanted < current and not await in_thread(self._all_low, target, policy):
                return
            cause = f"monitor alarm {raised.alarm.name} in state {raised.state} triggered policy {policy.document['PolicyName']}"
            if await self._change(target, current, wanted, cause):
                last = cooldown_of(policy.document).after(current, wanted, self._clock())
                await in_thread(self._scaling.note, policy, notes_of(policy.document, last))

    # ---- limits and schedules ----

    async def _limit(self, target: Target, cause: str) -> None:
        async with self._lock:
            found = await in_thread(self._scaling.target, target)
            present = await in_thread(self._read, target)
            if found is None or present is None:
                return
            current, complete = present
            wanted = within(current, found.document["MinCapacity"], found.document["MaxCapacity"])
            if wanted != current and complete:
                await self._change(target, current, wanted, cause)
        if wanted != current and not complete and self._loop is not None:
            await asyncio.sleep(_TICK_S)
            self._spawn(self._limit(target, cause))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.look()
            except Exception:
                _log.exception("looking at scheduled scaling actions failed; it is tried again")

    async def look(self) -> None:
        """Do every scheduled action whose time has come."""
        now = self._clock()
        for action in await in_thread(self._scaling.actions):
            document = action.document
            begin = float(document.get("StartTime") or document["CreationTime"])
            last = float((document.get(NOTES) or {}).get("last", max(begin, document["CreationTime"])))
            due = self._schedule(action).next(last if last > begin else begin - 1e-3, begin)
            if due is None or due > now or due > document.get("EndTime", float("inf")):
                continue
            await in_thread(self._scaling.note, action, {"last": now})
            await self._scheduled(action)

    def _schedule(self, action: Resource) -> Schedule:
        known = self._schedules.get(action.arn)
        if known is None or known[0] != action.modified:
            schedule = Schedule.parse(action.document["Schedule"], action.document.get("Timezone", ""))
            known = self._schedules[action.arn] = (action.modified, schedule)
        return known[1]

    async def _scheduled(self, action: Resource) -> None:
        target = Target.of(action.region, action.document)
        found = await in_thread(self._scaling.target, target)
        if found is None or (found.document.get("SuspendedState") or {}).get("ScheduledScalingSuspended"):
            return
        limits = action.document.get("ScalableTargetAction") or {}
        least = limits.get("MinCapacity", found.document["MinCapacity"])
        most = limits.get("MaxCapacity", found.document["MaxCapacity"])
        least, most = (min(least, most), most) if "MaxCapacity" in limits else (least, max(least, most))
        await in_thread(self._scaling.settings, found, MinCapacity=least, MaxCapacity=most)
        await self._limit(
            target, f"scheduled action name {action.document['ScheduledActionName']} was triggered"
        )

    # ---- changes ----

    async def _change(self, target: Target, current: int, wanted: int, cause: str) -> bool:
        """Ask for another capacity, write that down, and follow it up."""
        activity = await in_thread(self._scaling.begin_activity, target, cause, wanted)
        capacity = self._capacity[target.namespace, target.dimension]
        try:
            await in_thread(capacity.change, target.region, target.resource_id, wanted)
        except Exception as error:
            await in_thread(
                self._scaling.end_activity, activity, "Failed",
                f"Failed to set desired {target.quantity} to {wanted}. Reason: {error}",
            )  # fmt: skip
            return False
        _log.info("%s goes from %d to %d: %s", target.resource_id, current, wanted, cause)
        self._spawn(self._fulfil(activity))
        return True

    async def _fulfil(self, activity: Resource) -> None:
        """Wait until what was asked for is there, or something else was asked for."""
        target, wanted = Target.of(activity.region, activity.document), activity.document[NOTES]["wanted"]
        while True:
            present = await in_thread(self._read, target)
            if present is None:
                status, message = "Failed", f"{target.resource_id} does not exist any more."
                break
            if present[0] != wanted:
                status, message = (
                    "Overridden",
                    f"The desired {target.quantity} was set to {present[0]} meanwhile.",
                )
                break
            if present[1]:
                status = "Successful"
                message = (
                    f"Successfully set desired {target.quantity} to {wanted}. Change successfully fulfilled by "
                    "sagemaker."
                )
                break
            await asyncio.sleep(_TICK_S)
        await in_thread(self._scaling.end_activity, activity, status, message)

    def _read(self, target: Target) -> tuple[int, bool] | None:
        capacity = self._capacity.get((target.namespace, target.dimension))
        return None if capacity is None else capacity.read(target.region, target.resource_id)

    def _suspended(self, target: Resource, scales_in: bool) -> bool:
        state = target.document.get("SuspendedState") or {}
        member = "DynamicScalingInSuspended" if scales_in else "DynamicScalingOutSuspended"
        return bool(state.get(member))

    def _all_low(self, target: Target, policy: Resource) -> bool:
        """Whether every other target tracking policy that scales in agrees that there is too much."""
        if "TargetTrackingScalingPolicyConfiguration" not in policy.document:
            return True
        for other in self._scaling.list(POLICY, target.region, target):
            tracking = other.document.get("TargetTrackingScalingPolicyConfiguration")
            if other.name == policy.name or tracking is None or tracking.get("DisableScaleIn"):
                continue
            for named in other.document.get("Alarms", ()):
                alarm = self._alarms.get(target.region, named["AlarmName"])
                if is_low_alarm(named["AlarmName"]) and (alarm is None or alarm.status != "ALARM"):
                    return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            work.close()
        else:
            self._work.spawn(work)
