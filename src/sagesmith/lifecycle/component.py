"""An inference component from its creation to its end: an endpoint's lifecycle whose instances are copies.

A copy is started, watched, replaced, drained and ended as an instance of an endpoint is, and an update of the
component goes over from one deployment to the next as an endpoint's does. What is added here is that every copy has a
*home*, the instance of the endpoint that it is on: it starts when a home was found for it, and moves when its home is
to leave, the successor first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from sagesmith.lifecycle import _rollout, endpoint
from sagesmith.lifecycle._endpoint_state import Instance, Variant, map_variants, new_id, renew
from sagesmith.lifecycle.endpoint import Deployment, EndpointRun, Phase, Status

__all__ = ["ComponentEvent", "ComponentRun", "Homes", "NoRoom", "Placed", "create", "step"]


@dataclass(frozen=True, slots=True)
class ComponentRun(EndpointRun):
    """The state of an inference component; its `instances` are the copies, of one variant.

    `homes` are (copy, instance of the endpoint), `leaving` copies that end as soon as others stand in for them, and
    `short` says why copies have no home ("" if all that was tried was placed).
    """

    homes: tuple[tuple[str, str], ...] = ()
    leaving: tuple[str, ...] = ()
    short: str = ""

    def home_of(self, copy: str) -> str:
        """Return the instance that *copy* is on, "" if it has none yet."""
        return dict(self.homes).get(copy, "")


@dataclass(frozen=True, slots=True)
class Placed:
    """There is room for the copy on that instance, and it is the copy's now."""

    copy: str
    home: str


@dataclass(frozen=True, slots=True)
class NoRoom:
    """No instance has room for the copy, and none will come for it."""

    copy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Homes:
    """These are all the instances that copies may be on. Copies on others move."""

    usable: tuple[str, ...]


ComponentEvent: TypeAlias = Placed | NoRoom | Homes


def create(uid: str, deployment: Deployment, at: float) -> ComponentRun:
    """Return a new component's state, its copies named but not placed. A component without copies is in service."""
    planned = endpoint.create(uid, deployment, at)
    run = ComponentRun(planned.uid, planned.status, planned.serial, pending=planned.pending, pending_since=at)
    return step(run, endpoint.Due(), at)


def step(run: ComponentRun, event: endpoint.Event | ComponentEvent, at: float) -> ComponentRun:
    """Return *run* after *event* at time *at*; *run* itself if the event says nothing new."""
    if run.status is Status.DELETED:
        return run
    match event:
        case Placed():
            after = _placed(run, event)
        case NoRoom():
            after = _no_room(run, event)
        case Homes():
            after = _homes(run, event)
        case _:
            after = cast(ComponentRun, endpoint.step(run, event, at)[0])
    while (further := _tidy(cast(ComponentRun, endpoint.step(after, endpoint.Due(), at)[0]))) != after:
        after = further
    return run if after == run else after


# ---- what each event does ----------------------------------------------------------------------------


def _placed(run: ComponentRun, event: Placed) -> ComponentRun:
    if run.home_of(event.copy) or event.copy not in run.instance_ids or event.copy in run.ending:
        return run
    return replace(run, homes=(*run.homes, (event.copy, event.home)), short="")


def _no_room(run: ComponentRun, event: NoRoom) -> ComponentRun:
    if run.home_of(event.copy) or event.copy not in run.instance_ids or event.copy in run.ending:
        return run
    is_new = run.pending is not None and any(
        copy.instance_id == event.copy for variant in run.pending.variants for copy in variant.instances
    )
    if is_new and not (run.rollout is not None and run.rollout.back):
        return cast(ComponentRun, _rollout.take_back(run, event.reason))
    # Nobody can stand in for copies whose home leaves: they end, and come back when there is room.
    return cast(ComponentRun, _drop(replace(run, short=event.reason[:1024], leaving=()), set(run.leaving)))


def _homes(run: ComponentRun, event: Homes) -> ComponentRun:
    usable, homes = set(event.usable), dict(run.homes)
    for copy in run.instances:
        home = homes.get(copy.instance_id, "")
        if not home or home in usable:
            continue
        if copy.phase is Phase.READY:
            if copy.instance_id not in run.leaving:
                run = replace(run, leaving=(*run.leaving, copy.instance_id))
        elif copy.phase is Phase.PLANNED:
            run = replace(run, homes=tuple(h for h in run.homes if h[0] != copy.instance_id))
        elif copy.phase is not Phase.PAUSED:
            run = replace(run, ending=(*run.ending, copy.instance_id))
            run = cast(ComponentRun, renew(run, copy.instance_id, failures=0))
    back = {copy for copy in run.leaving if homes.get(copy) in usable}
    return replace(run, leaving=tuple(copy for copy in run.leaving if copy not in back)) if back else run


# ---- parts of the above ------------------------------------------------------------------------------


def _tidy(run: ComponentRun) -> ComponentRun:
    """Plan successors of copies that leave, let go of what has one, and forget what is no more."""
    ready = {copy.instance_id for copy in run.instances if copy.phase is Phase.READY}
    run = cast(ComponentRun, _drop(run, {copy for copy in run.leaving if copy not in ready}))
    run = replace(run, leaving=tuple(copy for copy in run.leaving if copy in ready))
    for part in ("current", "pending"):
        deployment: Deployment | None = getattr(run, part)
        for variant in deployment.variants if deployment is not None else ():
            run = _balance(run, variant, part)
    known = set(run.instance_ids)
    run = replace(run, homes=tuple(home for home in run.homes if home[0] in known))
    return _settle(run)


def _balance(run: ComponentRun, variant: Variant, part: str) -> ComponentRun:
    """Bring the copies of *variant* that stay to the number wanted; those that leave go as these come up."""
    leaving = [copy for copy in variant.instances if copy.instance_id in run.leaving]
    staying = [copy for copy in variant.instances if copy.instance_id not in run.leaving]
    if not leaving and len(staying) <= variant.wanted:
        return run  # an endpoint's lifecycle fills up the rest
    homes = dict(run.homes)
    staying.sort(key=lambda copy: (copy.phase is not Phase.READY, copy.instance_id not in homes))
    gone = {copy.instance_id for copy in staying[variant.wanted :]}
    added: list[Instance] = []
    while len(staying) + len(added) < variant.wanted:
        planned, name = new_id(run)
        run = cast(ComponentRun, planned)
        added.append(Instance(name))
    serve = sum(copy.phase is Phase.READY for copy in staying[: variant.wanted])
    spare = max(0, serve + len(leaving) - variant.wanted)
    gone |= {copy.instance_id for copy in leaving[:spare]}

    def changed(each: Variant) -> Variant:
        return replace(each, instances=(*each.instances, *added)) if each == variant else each

    run = cast(ComponentRun, map_variants(run, changed, which=(part,)))
    return cast(ComponentRun, _drop(run, gone))


def _drop(run: EndpointRun, copies: set[str]) -> EndpointRun:
    """Take *copies* out of their variants, and end those that exist or may exist."""
    if not copies:
        return run
    alive = [c.instance_id for c in run.instances if c.instance_id in copies and c.phase is not Phase.PAUSED]

    def without(variant: Variant) -> Variant:
        return replace(variant, instances=tuple(c for c in variant.instances if c.instance_id not in copies))

    run = map_variants(run, without)
    return replace(run, ending=tuple(dict.fromkeys((*run.ending, *alive))))


def _settle(run: ComponentRun) -> ComponentRun:
    """A component is in service with as many copies as there is room for, and says what it lacks."""
    missing = _homeless(run)
    if run.short and not missing:
        return replace(run, short="")
    if run.short and run.status is Status.UPDATING and run.pending is None and run.current is not None:
        ready = sum(variant.ready for variant in run.current.variants)
        wanted = sum(variant.wanted for variant in run.current.variants)
        if ready + len(missing) >= wanted:
            return replace(run, status=Status.IN_SERVICE)
    return run


def _homeless(run: ComponentRun) -> Mapping[str, Instance]:
    homes = dict(run.homes)
    return {
        copy.instance_id: copy
        for copy in run.instances
        if copy.phase is Phase.PLANNED and copy.instance_id not in homes
    }
