"""A transform job's way: what each event does, and what the state demands."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sagesmith.lifecycle.jobs import (
    Finished,
    InstanceStarted,
    KeyIssued,
    Lost,
    Release,
    Revoke,
    Start,
    Status,
    Stop,
    StopRequested,
    Waiting,
)
from sagesmith.lifecycle.records import transform_document, transform_run
from sagesmith.lifecycle.transform import FORGIVEN_LOSSES, Event, TransformRun, demands, plan, step


def a_run(count: int = 2) -> TransformRun:
    return plan("i-0123456789ab", instance_count=count, created=100.0)


def after(run: TransformRun, events: Iterable[Event], at: float = 110.0) -> TransformRun:
    for event in events:
        run = step(run, event, at)
    return run


def names(run: TransformRun) -> list[str]:
    return [host.instance_id for host in run.hosts]


def test_a_job_goes_its_way() -> None:
    run = a_run()
    one, two = names(run)
    assert demands(run) == (Start(one), Start(two))
    run = after(run, [Waiting(), KeyIssued("AKIA1"), InstanceStarted(one), InstanceStarted(two)])
    assert (run.status, run.started, demands(run)) == (Status.IN_PROGRESS, 110.0, ())
    run = after(run, [Finished(one)])
    assert demands(run) == (Release(one),)
    run = after(run, [Finished(two)], 120.0)
    assert (run.status, run.ended) == (Status.COMPLETED, 120.0)
    assert set(demands(run)) == {Release(one), Release(two), Revoke("AKIA1")}


def test_events_that_come_twice_change_nothing() -> None:
    run = after(a_run(1), [InstanceStarted(names(a_run(1))[0])])
    [name] = names(run)
    repeated: tuple[Event, ...] = (InstanceStarted(name), InstanceStarted("i-x"), Finished("i-x"), Waiting())
    for event in repeated:
        assert step(run, event, 200.0) is run
    over = step(run, Finished(name), 120.0)
    late: tuple[Event, ...] = (Finished(name), StopRequested(), Lost(name, "x"))
    for event in late:
        assert step(over, event, 200.0) is over


@pytest.mark.parametrize(
    ("error", "client", "reason"),
    [
        ("Could not find model data.", True, "ClientError: Could not find model data."),
        ("AlgorithmError: See job logs", False, "AlgorithmError: See job logs"),
        ("disk", False, "InternalServerError: disk"),
    ],
)
def test_one_host_that_fails_fails_the_job_when_all_are_done(error: str, client: bool, reason: str) -> None:
    run = a_run()
    one, two = names(run)
    run = after(run, [InstanceStarted(one), InstanceStarted(two), Finished(one, error, client)])
    assert run.status is Status.IN_PROGRESS
    assert demands(run) == (Release(one),), "the other host goes on"
    run = after(run, [Finished(two, "later")])
    assert (run.status, run.failure_reason) == (Status.FAILED, reason)
    document = transform_document({"TransformJobName": "j"}, run)
    assert document["FailureReason"] == reason
    assert transform_run(document) == run


def test_stopping() -> None:
    run = a_run()
    one, two = names(run)
    run = after(run, [InstanceStarted(one), StopRequested()])
    assert run.status is Status.STOPPING
    assert demands(run) == (Stop(one, "Stopping the transform job"), Release(two))
    run = after(run, [Finished(one, "too late", True)])
    assert (run.status, run.failure_reason) == (Status.STOPPED, "")
    assert after(a_run(), [StopRequested()]).status is Status.STOPPED


def test_a_lost_instance_is_replaced() -> None:
    run = a_run()
    one, two = names(run)
    run = after(run, [InstanceStarted(one), InstanceStarted(two), Lost(two, "killed")])
    successor = run.hosts[1]
    assert (successor.attempt, successor.is_planned) == (1, True)
    assert demands(run) == (Release(two), Start(successor.instance_id))
    assert step(run, Finished(two), 120.0) is run, "what it says afterwards is nobody's business"


def test_losses_are_forgiven_so_often() -> None:
    run = a_run(1)
    for number in range(FORGIVEN_LOSSES + 1):
        assert run.losses == number
        run = after(run, [InstanceStarted(names(run)[0]), Lost(names(run)[0], "killed")])
    assert run.status is Status.FAILED
    assert "were lost: killed" in run.failure_reason
    run = a_run(1)
    for _ in range(20):
        run = after(run, [InstanceStarted(names(run)[0]), Lost(names(run)[0], "down", shutdown=True)])
    assert run.status is Status.IN_PROGRESS


def test_a_lost_instance_of_a_job_that_stops_is_not_replaced() -> None:
    run = after(a_run(1), [InstanceStarted(names(a_run(1))[0]), StopRequested()])
    assert after(run, [Lost(names(run)[0], "killed")]).status is Status.STOPPED
