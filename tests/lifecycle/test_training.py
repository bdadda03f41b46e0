"""Every way a training job can go, without a clock or a process."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sagesmith.lifecycle import training as t
from sagesmith.lifecycle.records import training_document, training_run
from sagesmith.lifecycle.training import (
    Cause,
    ContainerExited,
    DeadlinePassed,
    Event,
    Finished,
    InstanceStarted,
    KeyIssued,
    Lost,
    Merge,
    Phase,
    Release,
    Revoke,
    Shutdown,
    StageReached,
    Start,
    Status,
    Stop,
    StopRequested,
    TrainingRun,
    Uploaded,
    Waiting,
    demands,
    plan,
    step,
)

UID = "i-0123456789ab"


def a_run(instances: int = 1, **more: object) -> TrainingRun:
    return plan(UID, instance_count=instances, created=1000.0, max_runtime_s=100.0, **more)  # type: ignore[arg-type]


def host(number: int = 1, attempt: int = 0) -> str:
    return f"{UID}{attempt:02x}{number:03x}"


def after(run: TrainingRun, events: Iterable[Event], start: float = 1000.0) -> TrainingRun:
    """Apply events one second apart; also checks what holds after each."""
    at = start
    for event in events:
        at += 1
        before = run
        run, commands = step(run, event, at)
        assert set(commands) == set(demands(run)) - set(demands(before))
        assert step(run, event, at)[0] == run or isinstance(event, KeyIssued), (
            "a repeated event changes nothing"
        )
        assert training_run(training_document({}, run)) == run
    return run


def up_to_training(number: int = 1) -> list[Event]:
    name = host(number)
    return [InstanceStarted(name), StageReached(name, "Downloading"), StageReached(name, "Training")]


def a_good_end(number: int = 1) -> list[Event]:
    name = host(number)
    return [
        ContainerExited(name, 0),
        StageReached(name, "Uploading"),
        Uploaded(name, model_uri="s3://m"),
        Finished(name),
    ]


def shown(run: TrainingRun) -> list[str]:
    return [f"{x.status} - {x.message}" for x in run.transitions]


def test_a_job_that_goes_well() -> None:
    run = a_run()
    assert demands(run) == (Start(host()),)
    run = after(run, [KeyIssued("AKIA"), *up_to_training(), *a_good_end()])
    assert run.status is Status.COMPLETED
    assert shown(run) == [
        "Starting - Preparing the instances for training",
        "Downloading - Downloading input data",
        "Training - Training image download completed. Training in progress.",
        "Uploading - Uploading generated training model",
        "Completed - Training job completed",
    ]
    assert [x.end for x in run.transitions[:-1]] == [x.start for x in run.transitions[1:]]
    assert (run.started, run.ended, run.seconds) == (1002.0, 1008.0, 6)
    assert set(demands(run)) == {Release(host()), Revoke("AKIA")}


def test_the_messages_of_a_start_follow_what_happens() -> None:
    run = a_run()
    assert shown(run) == ["Starting - Starting the training job"]
    run = after(run, [KeyIssued("AKIA")])
    assert shown(run) == ["Starting - Launching requested ML instances"]
    run = after(run, [Waiting()])
    assert run.secondary == "Pending"
    run = after(run, [InstanceStarted(host())])
    assert shown(run)[-1] == "Starting - Preparing the instances for training"
    run = after(run, [StageReached(host(), "DownloadingTrainingImage")])
    assert shown(run)[-1] == "Downloading - Downloading the training image"


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        ("ExecuteUserScriptError: no", 1, "AlgorithmError: ExecuteUserScriptError: no, exit code: 1"),
        ("ClientError: eta is 7", 2, "ClientError: eta is 7, exit code: 2"),
        ("", 3, "AlgorithmError: The container wrote nothing to /opt/ml/output/failure"),
        ("", 137, "more memory"),
        ("x" * 5000, 1, ", exit code: 1"),
    ],
)
def test_a_container_that_fails(failure: str, code: int, reason: str) -> None:
    run = after(a_run(), [*up_to_training(), ContainerExited(host(), code, failure)])
    assert run.status is Status.IN_PROGRESS, "its output is still being uploaded"
    run = after(run, [StageReached(host(), "Uploading"), Uploaded(host()), Finished(host())])
    assert run.status is Status.FAILED
    assert reason in run.failure_reason
    assert len(run.failure_reason) <= 1024
    assert shown(run)[-2:] == [
        "Training - Training image download completed. Training in progress.",
        "Failed - Training job failed",
    ]


@pytest.mark.parametrize(("client", "fault"), [(True, "ClientError"), (False, "InternalServerError")])
def test_a_fault_outside_of_the_container(client: bool, fault: str) -> None:
    name = host()
    run = after(
        a_run(),
        [
            InstanceStarted(name),
            StageReached(name, "Downloading"),
            Finished(name, "no key x", client_error=client),
        ],
    )
    assert (run.status, run.failure_reason) == (Status.FAILED, f"{fault}: no key x")


@pytest.mark.parametrize("reached", range(4))
def test_stopping_in_each_stage(reached: int) -> None:
    run = after(a_run(), up_to_training()[:reached])
    run = after(run, [StopRequested()])
    if reached == 0:
        assert run.status is Status.STOPPED, "there is nothing to stop"
        assert demands(run) == (Release(host()),)
        assert run.seconds is None
        return
    assert run.status is Status.STOPPING
    assert run.secondary == "Stopping"
    assert demands(run) == (Stop(host(), "Training job stopped"),)
    run = after(
        run,
        [ContainerExited(host(), 143), StageReached(host(), "Uploading"), Uploaded(host()), Finished(host())],
    )
    assert (run.status, run.secondary, run.failure_reason) == (Status.STOPPED, "Stopped", "")


def test_a_stop_while_uploading_lets_the_upload_end() -> None:
    run = after(a_run(), [*up_to_training(), ContainerExited(host(), 0), StopRequested()])
    assert not any(isinstance(c, Stop | Shutdown) for c in demands(run))
    run = after(run, [Uploaded(host()), Finished(host())])
    assert run.status is Status.STOPPED


def test_a_stopped_job_whose_upload_fails_has_failed() -> None:
    run = after(
        a_run(),
        [*up_to_training(), StopRequested(), ContainerExited(host(), 0), Finished(host(), "no bucket")],
    )
    assert (run.status, run.failure_reason) == (Status.FAILED, "InternalServerError: no bucket")


def test_the_longest_runtime() -> None:
    run = after(a_run(), up_to_training())
    assert run.deadline == 1001.0 + 100.0
    assert step(run, DeadlinePassed(), 1100.9)[0] is run
    run, commands = step(run, DeadlinePassed(), 1101.0)
    assert commands == (Stop(host(), "Training job runtime exceeded MaxRuntimeInSeconds provided"),)
    assert run.deadline is None
    run = after(run, [ContainerExited(host(), 0), Uploaded(host()), Finished(host())])
    assert (run.status, run.secondary) == (Status.STOPPED, "MaxRuntimeExceeded")


def test_the_longest_wait_of_a_spot_job() -> None:
    run = a_run(max_wait_s=50.0)
    assert run.deadline == 1050.0
    run, _ = step(run, DeadlinePassed(), 1050.0)
    assert (run.status, run.secondary) == (Status.STOPPED, "MaxWaitTimeExceeded")


def test_several_hosts_make_one_artifact() -> None:
    run = a_run(3)
    assert demands(run) == tuple(Start(host(n)) for n in (1, 2, 3))
    run = after(run, up_to_training(2))
    assert run.secondary == "Training", "as soon as the first host trains"
    run = after(run, [*up_to_training(1), *up_to_training(3)])
    assert run.secondary == "Training"
    run = after(
        run, [ContainerExited(host(1), 0), StageReached(host(1), "Uploading"), Uploaded(host(1), "s3://1")]
    )
    assert run.secondary == "Training"
    run = after(run, [ContainerExited(host(n), 0) for n in (2, 3)])
    assert run.secondary == "Uploading"
    run = after(run, [Uploaded(host(2), "")])
    assert demands(run) == ()
    run = after(run, [Uploaded(host(3), "s3://3")])
    assert set(demands(run)) == {Merge(host(1), ("s3://1", "s3://3")), Shutdown(host(2)), Shutdown(host(3))}
    run = after(run, [Finished(host(2)), Finished(host(3)), Uploaded(host(1), model_uri="s3://m")])
    assert run.status is Status.IN_PROGRESS
    run = after(run, [Finished(host(1))])
    assert run.status is Status.COMPLETED


def test_one_of_several_hosts_fails() -> None:
    run = after(a_run(3), [*up_to_training(1), *up_to_training(2)])
    run, commands = step(run, ContainerExited(host(2), 1, "out of luck"), 1010.0)
    assert set(commands) == {Shutdown(host(1)), Release(host(3))}, "the third has not started"
    run = after(run, [Uploaded(host(2)), Finished(host(1))])
    assert Shutdown(host(2)) in demands(run)
    run = after(run, [Finished(host(2))])
    assert (run.status, run.failure_reason) == (Status.FAILED, "AlgorithmError: out of luck, exit code: 1")


def test_a_lost_instance_fails_the_job() -> None:
    run = after(a_run(2), [*up_to_training(1), *up_to_training(2), Lost(host(1), "killed by signal 9")])
    assert demands(run) == (Release(host(1)), Shutdown(host(2)))
    run = after(run, [Finished(host(2))])
    assert run.status is Status.FAILED
    assert run.failure_reason == (
        "InternalServerError: An instance of the training job was lost: killed by signal 9"
    )


def test_a_lost_instance_starts_the_job_again_if_retries_are_left() -> None:
    run = after(a_run(retries=1), [*up_to_training(), Lost(host(), "power cut")])
    assert run.secondary == "Restarting"
    assert set(demands(run)) == {Release(host()), Start(host(attempt=1))}
    again = host(attempt=1)
    run = after(run, [InstanceStarted(again), StageReached(again, "Training"), Lost(again, "power cut")])
    assert run.status is Status.FAILED


def test_a_shutdown_starts_the_job_again_from_the_beginning() -> None:
    run = after(a_run(2), [*up_to_training(1), *up_to_training(2), ContainerExited(host(1), 0)])
    run = after(run, [Lost(host(2), "down", shutdown=True), Lost(host(1), "down", shutdown=True)])
    assert run.secondary == "Restarting"
    assert [h.phase for h in run.hosts] == [Phase.PLANNED] * 2
    assert run.deadline is None, "the time of the shutdown is not the job's"
    again = host(attempt=1)
    run = after(run, [InstanceStarted(again), StageReached(again, "Downloading")])
    assert run.secondary == "Downloading"
    assert after(run, [Finished(host(1), "an old message")]) == run


def test_a_shutdown_after_the_upload_is_no_loss() -> None:
    run = after(a_run(), [*up_to_training(), *a_good_end()[:3], Lost(host(), "down", shutdown=True)])
    assert run.status is Status.COMPLETED


def test_a_shutdown_while_stopping_ends_the_job() -> None:
    run = after(a_run(), [*up_to_training(), StopRequested(), Lost(host(), "down", shutdown=True)])
    assert run.status is Status.STOPPED


def test_what_comes_after_the_end_changes_nothing() -> None:
    run = after(a_run(), [*up_to_training(), *a_good_end()])
    for event in (StopRequested(), Lost(host(), "late"), DeadlinePassed(), StageReached(host(), "Training")):
        assert step(run, event, 5000.0) == (run, ())


def test_an_instance_that_ends_without_its_container_is_a_fault_of_ours() -> None:
    run = after(a_run(), [*up_to_training(), Finished(host())])
    assert run.status is Status.FAILED
    assert run.failure_reason.startswith("InternalServerError")


def test_no_sequence_of_events_breaks_the_rules() -> None:
    """All orders of three events out of every kind, on two hosts: no exception, statuses only go forward."""
    kinds: list[Event] = [StopRequested(), DeadlinePassed(), Waiting()]
    for n in (1, 2):
        kinds += [
            InstanceStarted(host(n)), StageReached(host(n), "Training"), ContainerExited(host(n), 0),
            ContainerExited(host(n), 1), Uploaded(host(n), "s3://p"), Finished(host(n)), Finished(host(n), "x"),
            Lost(host(n), "x"), Lost(host(n), "x", shutdown=True),
        ]  # fmt: skip
    order = [Status.IN_PROGRESS, Status.STOPPING, Status.COMPLETED, Status.FAILED, Status.STOPPED]
    for first in kinds:
        for second in kinds:
            for third in kinds:
                run = a_run(2)
                for event in (first, second, third):
                    before = run
                    run, _ = step(run, event, 2000.0)
                    assert order.index(run.status) >= order.index(before.status)
                    assert run.cause is not Cause.NONE or run.status in (Status.IN_PROGRESS, Status.COMPLETED)
                    assert not run.over or all(h.phase is Phase.ENDED for h in run.hosts)


def test_names_are_those_of_the_api() -> None:
    assert {s.value for s in t.TERMINAL} == {"Completed", "Failed", "Stopped"}
