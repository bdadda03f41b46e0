"""Every way an endpoint can go, without a clock or a process."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sagesmith.lifecycle.endpoint import (
    ATTEMPTS,
    CapacityRequested,
    DeleteRequested,
    Deployment,
    Due,
    End,
    EndpointRun,
    Event,
    Failed,
    InstanceReleased,
    InstanceStarted,
    KeyIssued,
    Ready,
    Remove,
    Serve,
    Served,
    Start,
    Status,
    Unhealthy,
    UpdateRequested,
    Variant,
    create,
    demands,
    step,
)
from sagesmith.lifecycle.records import endpoint_document, endpoint_run

UID = "i-0123456789ab"


def name(serial: int) -> str:
    return f"{UID}{serial:05x}"


def a_deployment(config: str = "one", **counts: int) -> Deployment:
    variants = tuple(Variant(v, 1.0, n, {"image": "i"}) for v, n in (counts or {"blue": 1}).items())
    return Deployment(config, variants)


def after(run: EndpointRun, events: Iterable[Event], at: float = 1000.0) -> EndpointRun:
    for event in events:
        before = run
        run, commands = step(run, event, at)
        assert set(commands) == set(demands(run)) - set(demands(before))
        assert endpoint_run(endpoint_document({}, run)) == run
    return run


def address(serial: int) -> str:
    return f"unix:/run/{serial}"


def up(*serials: int) -> list[Event]:
    events: list[Event] = []
    for serial in serials:
        events += [InstanceStarted(name(serial)), Ready(name(serial), address(serial))]
    return events


def served(*serials: int, variant: str = "blue", weight: float = 1.0, number: int = 0) -> Served:
    return Served(variant, weight, tuple((name(s), address(s), "frames") for s in serials), number)


def serving(*serials: int, variant: str = "blue", weight: float = 1.0, number: int = 0) -> Serve:
    return Serve((served(*serials, variant=variant, weight=weight, number=number),))


def in_service(**counts: int) -> EndpointRun:
    run = create(UID, a_deployment("one", **counts), 1000.0)
    return after(run, up(*range(1, sum(counts.values() or [1]) + 1)))


def test_an_endpoint_comes_up_when_all_its_instances_are_ready() -> None:
    run = create(UID, a_deployment(blue=1, green=2), 1000.0)
    assert demands(run) == (
        Serve(()),
        Start(name(1), "blue", True),
        Start(name(2), "green", True),
        Start(name(3), "green", True),
    )
    run = after(run, up(1, 3))
    assert run.status is Status.CREATING
    assert demands(run)[0] == Serve(()), "an endpoint that is being created takes no requests"
    run = after(run, up(2))
    assert run.status is Status.IN_SERVICE
    assert isinstance(demands(run)[0], Serve)
    assert [len(v.instances) for v in demands(run)[0].variants] == [1, 2]  # type: ignore[union-attr]


def test_an_endpoint_that_does_not_come_up_has_failed_and_says_why() -> None:
    run = create(UID, a_deployment(blue=2), 1000.0)
    run = after(run, [KeyIssued(name(1), "AKIA"), *up(1), Failed(name(2), "exit code 1", final=True)])
    assert run.status is Status.FAILED
    assert run.failure_reason.startswith(
        "The primary container for production variant blue did not pass the ping health check."
    )
    assert "exit code 1" in run.failure_reason
    assert set(demands(run)) == {Serve(()), End(name(1)), End(name(2))}
    run = after(run, [InstanceReleased(name(1)), InstanceReleased(name(2))])
    assert demands(run) == (Serve(()),)
    assert run.keys == ()
    run = after(run, [DeleteRequested()])
    assert run.status is Status.DELETED
    assert Remove() in demands(run)


def test_an_instance_that_is_lost_while_coming_up_is_tried_again_a_few_times() -> None:
    run = create(UID, a_deployment(), 1000.0)
    at = 1000.0
    for attempt in range(1, ATTEMPTS):
        run = after(run, [InstanceStarted(name(attempt)), Failed(name(attempt), "killed")], at)
        assert run.status is Status.CREATING
        assert run.next_due is not None
        at = run.next_due
        run = after(run, [Due()], at)
        assert Start(name(attempt + 1), "blue", True) in demands(run)
    run = after(run, [Failed(name(ATTEMPTS), "killed")], at)
    assert run.status is Status.FAILED


def test_a_crashed_instance_is_replaced_after_growing_pauses() -> None:
    run = in_service(blue=2)
    pauses = []
    at, serial = 2000.0, 2
    for _ in range(4):
        run = after(run, [Failed(name(serial), "killed")], at)
        assert demands(run)[0] == serving(1), "the other goes on"
        assert End(name(serial)) in demands(run)
        assert run.next_due is not None
        pauses.append(run.next_due - at)
        assert after(run, [Due()], run.next_due - 0.1) == run
        at = run.next_due
        serial = run.serial + 1
        run = after(run, [Due(), *up(serial)], at)
        assert demands(run)[0] == serving(1, serial)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert run.status is Status.IN_SERVICE
    run = after(run, [Failed(name(serial), "killed")], at + 1000.0)
    assert run.next_due == at + 1001.0, "it had served long enough"


def test_an_unhealthy_instance_takes_no_requests_until_it_is_ready_again() -> None:
    run = after(in_service(), [Unhealthy(name(1), "no answer")])
    assert demands(run)[0] == Serve((Served("blue", 1.0, ()),))
    run = after(run, [Ready(name(1), "unix:/run/other")])
    assert demands(run)[0] == Serve((Served("blue", 1.0, ((name(1), "unix:/run/other", "frames"),)),))


def test_after_a_shutdown_the_instance_is_replaced_at_once() -> None:
    run = after(in_service(), [Failed(name(1), "down", shutdown=True)])
    assert run.status is Status.IN_SERVICE
    assert Start(name(2), "blue", False) in demands(run)
    assert demands(run)[0] == Serve((Served("blue", 1.0, ()),))
    run = after(run, [InstanceReleased(name(1)), *up(2)])
    assert demands(run) == (serving(2),)


def test_an_update_switches_when_the_new_deployment_is_ready() -> None:
    run = after(in_service(), [UpdateRequested(a_deployment("two", green=2))])
    assert run.status is Status.UPDATING
    assert demands(run)[0] == serving(1)
    run = after(run, up(2))
    assert demands(run)[0] == serving(1), "the old one serves until all are ready"
    run = after(run, up(3))
    assert run.status is Status.IN_SERVICE
    assert run.current is not None
    assert run.current.config_name == "two"
    assert demands(run) == (serving(2, 3, variant="green", number=1), End(name(1)))
    assert demands(after(run, [InstanceReleased(name(1))])) == (serving(2, 3, variant="green", number=1),)


def test_an_update_that_fails_leaves_the_old_deployment() -> None:
    run = after(in_service(), [UpdateRequested(a_deployment("two")), Failed(name(2), "no model", final=True)])
    assert run.status is Status.IN_SERVICE
    assert run.current is not None
    assert run.current.config_name == "one"
    assert "no model" in run.failure_reason
    assert demands(run) == (serving(1), End(name(2)))
    run = after(run, [UpdateRequested(a_deployment("three"))])
    assert run.failure_reason == ""


def test_weights_change_at_once_and_instances_come_and_go() -> None:
    run = after(in_service(), [CapacityRequested({"blue": (0.25, None)})])
    assert run.status is Status.IN_SERVICE
    assert demands(run) == (serving(1, weight=0.25),)
    run = after(run, [CapacityRequested({"blue": (None, 3)})])
    assert run.status is Status.UPDATING
    run = after(run, up(2))
    assert run.status is Status.UPDATING
    assert demands(run)[0] == serving(1, 2, weight=0.25)
    run = after(run, [CapacityRequested({"blue": (None, 1)})])
    assert run.status is Status.IN_SERVICE
    assert set(demands(run)) == {serving(1, weight=0.25), End(name(3)), End(name(2))}


@pytest.mark.parametrize("moment", range(4))
def test_deleting_at_any_moment(moment: int) -> None:
    run = [
        create(UID, a_deployment(), 1000.0),
        in_service(),
        after(in_service(), [UpdateRequested(a_deployment("two"))]),
        after(in_service(), [Failed(name(1), "killed")]),
    ][moment]
    run = after(run, [DeleteRequested()])
    assert run.status is Status.DELETING
    assert demands(run)[0] == Serve(())
    ending = [c.instance_id for c in demands(run) if isinstance(c, End)]
    assert ending
    run = after(run, [Ready(ending[0], "unix:/late"), *(InstanceReleased(i) for i in ending)])
    assert run.status is Status.DELETED
    assert demands(run) == (Serve(()), Remove())


def test_what_describe_shows_is_what_is_there() -> None:
    run = create(UID, a_deployment(blue=2), 1000.0)
    shown = endpoint_document({}, after(run, up(1)))
    assert shown["EndpointStatus"] == "Creating"
    assert shown["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert shown["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    updating = after(in_service(), [UpdateRequested(a_deployment("two", blue=3))])
    shown = endpoint_document({}, updating)
    assert shown["EndpointConfigName"] == "one"
    assert shown["PendingDeploymentSummary"]["EndpointConfigName"] == "two"
    assert shown["PendingDeploymentSummary"]["ProductionVariants"][0]["CurrentInstanceCount"] == 0
