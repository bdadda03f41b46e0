"""Every way a notebook instance can go, without a clock or a process."""

from __future__ import annotations

import pytest

from sagesmith.lifecycle.notebook import (
    ATTEMPTS,
    Created,
    DeleteRequested,
    End,
    Event,
    Failed,
    InvalidTransition,
    KeyIssued,
    Lost,
    NotebookRun,
    Ready,
    Released,
    Remove,
    Serve,
    Start,
    StartRequested,
    Status,
    StopRequested,
    create,
    demands,
    step,
)
from sagesmith.lifecycle.records import notebook_document, notebook_run

UID = "nb-0123456789ab"
NEW = create(UID, "first")


def name(serial: int) -> str:
    return f"{UID}{serial:05x}"


def after(run: NotebookRun, *events: Event) -> NotebookRun:
    for event in events:
        run = step(run, event)
        assert notebook_run(notebook_document({}, run)) == run
    return run


SERVING = after(NEW, KeyIssued(name(1), "K1"), Created(name(1)), Ready(name(1), "unix:/one"))


def test_it_starts_serves_stops_and_starts_again_with_another_secret() -> None:
    assert (NEW.status, demands(NEW)) == (Status.PENDING, [Start(name(1))])
    assert (SERVING.status, demands(SERVING)) == (Status.IN_SERVICE, [Serve("unix:/one", "first")])
    stopping = after(SERVING, StopRequested())
    assert (stopping.status, demands(stopping)) == (Status.STOPPING, [End(name(1))])
    assert stopping.keys == ((name(1), "K1"),)
    stopped = after(stopping, Released(name(1)))
    assert (stopped.status, demands(stopped), stopped.keys) == (Status.STOPPED, [], ())
    again = after(stopped, StartRequested("second"))
    assert demands(again) == [Start(name(2))]
    assert again.created, "the script that runs once has run"
    assert demands(after(again, Ready(name(2), "unix:/two"))) == [Serve("unix:/two", "second")]


def test_deleting_waits_for_what_is_left() -> None:
    stopped = after(SERVING, StopRequested(), Released(name(1)))
    deleting = after(stopped, DeleteRequested())
    assert (deleting.status, demands(deleting)) == (Status.DELETING, [Remove()])
    assert after(deleting, DeleteRequested()) is deleting


@pytest.mark.parametrize(
    ("run", "event", "sentence"),
    [
        (SERVING, StartRequested("x"), r"Status \(InService\) not in \(\[Stopped, Failed\]\)"),
        (SERVING, DeleteRequested(), r"Unable to transition to \(Deleting\)"),
        (NEW, StopRequested(), r"Status \(Pending\) not in \(\[InService\]\)"),
        (NEW, DeleteRequested(), r"Status \(Pending\)"),
    ],
)
def test_what_a_status_does_not_allow_is_refused(run: NotebookRun, event: Event, sentence: str) -> None:
    with pytest.raises(InvalidTransition, match=sentence):
        step(run, event)


def test_it_has_failed_once_nothing_is_left_of_its_instance() -> None:
    failing = after(NEW, Failed(name(1), "no git"))
    assert (failing.status, demands(failing)) == (Status.PENDING, [End(name(1))])
    assert "FailureReason" not in notebook_document({}, failing)
    failed = after(failing, Released(name(1)))
    assert (failed.status, demands(failed)) == (Status.FAILED, [])
    assert notebook_document({}, failed)["FailureReason"] == "no git"
    again = after(failed, StartRequested("second"))
    assert (again.status, again.failure_reason, again.created) == (Status.PENDING, "", False)
    assert after(failed, DeleteRequested()).status is Status.DELETING


def test_a_lost_instance_is_replaced_some_times() -> None:
    run = SERVING
    for serial in range(1, ATTEMPTS + 1):
        assert run.instance_id == name(serial)
        run = after(run, Lost(name(serial), "killed"))
    assert (run.instance_id, run.status) == ("", Status.PENDING)
    for serial in range(1, ATTEMPTS + 1):
        run = after(run, Released(name(serial)))
    assert (run.status, run.failure_reason) == (Status.FAILED, "killed")


def test_what_the_platforms_own_end_took_along_counts_as_no_attempt() -> None:
    run = SERVING
    for serial in range(1, 9):
        run = after(run, Lost(name(serial), "shut down", shutdown=True), Released(name(serial)))
    assert demands(run) == [Start(name(9))]
    assert run.secret == "first", "sessions stay"


def test_what_an_earlier_instance_says_means_nothing() -> None:
    run = after(SERVING, StopRequested())
    for event in (Ready(name(1), "unix:/one"), Failed(name(1), "x"), Lost(name(1), "x"), Created(name(1))):
        assert step(run, event) is run
    assert step(SERVING, Ready(name(1), "unix:/one")) is SERVING
    assert step(SERVING, Released("other")) is SERVING
