"""Where copies go, and how a component goes through its life."""

from __future__ import annotations

import json

from sagesmith.lifecycle import component, endpoint
from sagesmith.lifecycle._codec import from_plain, to_plain
from sagesmith.lifecycle.component import ComponentRun, Homes, NoRoom, Placed
from sagesmith.lifecycle.endpoint import Deployment, Phase, Policy, Size, Status, Variant
from sagesmith.lifecycle.placement import Need, Tenant, choose

LARGE = Need(2, 0, 8192)
COPY = Need(1, 0, 1024)


def test_copies_are_spread_or_packed() -> None:
    instances = {"a": LARGE, "b": LARGE}
    tenants = [Tenant("a", "mine", COPY), Tenant("b", "other", COPY), Tenant("b", "gone", Need(0.5, 0, 10))]
    assert choose(COPY, "new", instances, tenants) == "a", "the one with fewer copies"
    assert choose(COPY, "mine", instances, tenants[:2]) == "b", "the one without a copy of this component"
    assert choose(COPY, "new", instances, [Tenant("b", "x", COPY)], pack=True) == "b"
    assert choose(Need(0.5, 0, 8000), "new", instances, [tenants[0]]) == "b", "memory counts"
    assert choose(Need(0.1, 1, 10), "new", instances, []) is None, "there are no accelerators"
    assert choose(Need(1.5, 0, 10), "new", instances, tenants) is None
    assert choose(COPY, "new", {}, tenants) is None


def deployment(count: int, name: str = "m") -> Deployment:
    return Deployment("", (Variant("all", 1.0, count, {"model_name": name}),))


def made(count: int, home: str = "i1") -> ComponentRun:
    """A component whose copies serve at *home*."""
    return up(component.create("c-", deployment(count), 0.0), home)


def up(run: ComponentRun, home: str, at: float = 1.0) -> ComponentRun:
    """Let every copy that has no home find it at *home*, and come up."""
    while True:
        planned = [c for c in run.instances if c.phase is Phase.PLANNED]
        if not planned:
            return run
        name = planned[0].instance_id
        if not run.home_of(name):
            run = component.step(run, Placed(name, home), at)
        run = component.step(run, endpoint.InstanceStarted(name), at)
        run = component.step(run, endpoint.Ready(name, f"unix:/{name}"), at)


def names(run: ComponentRun) -> list[str]:
    return [copy.instance_id for copy in run.instances]


def test_a_component_comes_up_and_is_kept() -> None:
    run = made(2)
    assert run.status is Status.IN_SERVICE
    assert dict(run.homes) == dict.fromkeys(names(run), "i1")
    assert from_plain(ComponentRun, json.loads(json.dumps(to_plain(run)))) == run
    assert component.step(run, Placed(names(run)[0], "i2"), 2.0) is run, "it has a home"


def test_one_without_copies_is_in_service_at_once() -> None:
    assert component.create("c-", deployment(0), 0.0).status is Status.IN_SERVICE


def test_one_that_finds_no_room_fails() -> None:
    run = component.create("c-", deployment(2), 0.0)
    run = component.step(run, NoRoom(names(run)[0], "too small"), 1.0)
    assert (run.status, run.failure_reason) == (Status.FAILED, "too small")


def test_as_many_copies_as_there_is_room_for() -> None:
    run = made(1)
    run = component.step(run, endpoint.CapacityRequested({"all": (None, 3)}), 2.0)
    first, second, third = names(run)
    run = component.step(run, Placed(second, "i1"), 2.0)
    run = component.step(run, NoRoom(third, "full"), 2.0)
    assert run.status is Status.UPDATING, "one still comes up"
    run = component.step(run, endpoint.InstanceStarted(second), 2.0)
    run = component.step(run, endpoint.Ready(second, "unix:/2"), 2.0)
    assert (run.status, run.short) == (Status.IN_SERVICE, "full")
    run = component.step(run, Placed(third, "i2"), 3.0)
    assert run.short == ""
    assert dict(run.homes) == {first: "i1", second: "i1", third: "i2"}


def test_copies_move_before_their_home_leaves() -> None:
    run = made(2)
    old = names(run)
    run = component.step(run, Homes(("i2",)), 2.0)
    assert set(run.leaving) == set(old)
    new = [name for name in names(run) if name not in old]
    assert len(new) == 2
    assert not run.ending, "they serve until others do"
    assert component.step(run, Homes(("i2",)), 2.0) is run
    run = component.step(run, Placed(new[0], "i2"), 2.0)
    run = component.step(run, endpoint.InstanceStarted(new[0]), 2.0)
    run = component.step(run, endpoint.Ready(new[0], "unix:/3"), 2.0)
    assert len(run.ending) == 1
    run = up(run, "i2")
    assert sorted(run.ending) == sorted(old)
    assert sorted(names(run)) == sorted(new)
    assert run.status is Status.IN_SERVICE


def test_copies_without_room_elsewhere_go_with_their_home() -> None:
    run = made(1)
    (old,) = names(run)
    run = component.step(run, Homes(("i2",)), 2.0)
    (new,) = set(names(run)) - {old}
    run = component.step(run, NoRoom(new, "full"), 2.0)
    assert run.ending == (old,)
    assert names(run) == [new]
    assert run.short == "full"


def test_a_home_that_comes_back_keeps_its_copies() -> None:
    run = component.step(made(2), Homes(()), 2.0)
    run = component.step(run, Homes(("i1",)), 2.0)
    assert not run.leaving
    assert len(names(run)) == 2
    assert all(copy.phase is Phase.READY for copy in run.instances)


def test_copies_that_die_with_their_home_are_planned_once() -> None:
    run = made(1)
    (old,) = names(run)
    run = component.step(run, Homes(()), 2.0)
    run = component.step(run, endpoint.Failed(old, "its instance ended", shutdown=True), 2.0)
    assert len(names(run)) == 1
    run = component.step(run, endpoint.InstanceReleased(old), 2.0)
    assert dict(run.homes) == {}
    assert up(run, "i2").status is Status.IN_SERVICE


def test_an_update_rolls_and_is_taken_back_without_room() -> None:
    run = made(2)
    old = names(run)
    rolling = Policy(rolling=True, first=Size(1))
    run = component.step(run, endpoint.UpdateRequested(deployment(2, "n"), rolling), 2.0)
    assert len(names(run)) == 3, "one more at a time"
    failed = component.step(run, NoRoom(names(run)[2], "full"), 2.0)
    assert (failed.status, failed.failure_reason, names(failed)) == (Status.IN_SERVICE, "full", old)
    run = up(run, "i1")
    assert run.status is Status.IN_SERVICE
    assert run.current is not None
    assert run.current.variants[0].details["model_name"] == "n"
    assert sorted(run.ending) == sorted(old)
