"""The driver of training jobs: jobs that go well, are stopped, fail, wait, and survive the server's death."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sagesmith.instance.spec import Exited, Finished, Log, MergeArtifacts, Shutdown, Stage, Stop, Uploaded
from tests.fleet.fake import FakeInstance, Script
from tests.jobs.bench import Bench, Fuse, trains_well


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


def statuses(job: dict[str, Any]) -> list[str]:
    return [step["Status"] for step in job["SecondaryStatusTransitions"]]


async def test_a_job_goes_its_way(bench: Bench) -> None:
    await bench.server()
    bench.create()
    job = await bench.ended()
    assert job["TrainingJobStatus"] == "Completed"
    assert statuses(job) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    [metric] = job["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("train:rmse", 2.0)
    assert job["BillableTimeInSeconds"] >= 1
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": "s3://bucket/output/job/output/model.tar.gz"}
    assert bench.lines() == ["[0]", "[1]", "[2]"]
    [series] = bench.metrics.list(region="us-east-1", namespace="/aws/sagemaker/TrainingJobs").items
    assert (series.name, series.dimensions) == ("train:rmse", {"TrainingJobName": "job"})
    events = [e.why for e in bench.resources.events(job["TrainingJobArn"]) if e.what == "status"]
    assert len(events) == 1


async def test_an_instance_is_told_what_it_must_know(bench: Bench) -> None:
    stop = asyncio.Event()

    async def waits(instance: FakeInstance) -> None:
        await stop.wait()

    bench.fleet.script = waits
    await bench.server()
    bench.create(
        instances=2,
        EnableNetworkIsolation=True,
        Environment={"A": "1"},
        CheckpointConfig={"S3Uri": "s3://bucket/checkpoints"},
    )
    await bench.until(lambda: len(bench.fleet.instances) == 2)
    spec = bench.fleet.instances[bench.fleet.started[1]].spec
    assert (spec.host, spec.hosts) == ("algo-2", ("algo-1", "algo-2"))
    assert spec.log_stream.startswith("job/algo-2-")
    assert spec.container.command == ("python", "-m", "sagesmith_algorithms", "train")
    assert spec.container.environment["SAGESMITH_ALGORITHM"] == "xgboost"
    assert spec.container.environment["A"] == "1"
    assert spec.container.network is False
    assert spec.container.warm == "algorithms"
    assert spec.role.access_key_id in bench.identities.working
    assert len(bench.identities.working) == 1, "all hosts share the job's key"
    task: Any = spec.task
    assert task.output_uri == "s3://bucket/output/job/output"
    assert task.channels[0].distribution == "FullyReplicated"
    assert dict(task.metric_definitions)["validation:auc"]


async def test_several_hosts(bench: Bench) -> None:
    await bench.server()
    bench.create(instances=3)
    await bench.until(lambda: len(bench.fleet.started) == 3)
    first = bench.fleet.instances[bench.fleet.started[0]]
    job = await bench.ended()
    assert job["TrainingJobStatus"] == "Completed"
    merge = next(c for c in first.heard if isinstance(c, MergeArtifacts))
    assert [uri.rsplit("/")[-1] for uri in merge.part_uris] == ["algo-1", "algo-2", "algo-3"]
    assert bench.lines(number=3) == ["[0]", "[1]", "[2]"]


async def test_stopping(bench: Bench) -> None:
    async def works_on(instance: FakeInstance) -> None:
        await instance.say(Stage("Training"))
        await instance.say(Log(((1, "working"),)))
        command = await instance.commands.get()
        assert isinstance(command, Stop)
        await instance.say(Exited(0, stopped=True))
        await instance.say(Uploaded(model_uri="s3://m"))
        await instance.say(Finished())

    bench.fleet.script = works_on
    await bench.server()
    bench.create()
    await bench.until(lambda: bench.describe()["SecondaryStatus"] == "Training")
    bench.call("StopTrainingJob", TrainingJobName="job")
    assert bench.describe()["TrainingJobStatus"] == "Stopping"
    job = await bench.ended()
    assert (job["TrainingJobStatus"], statuses(job)[-2:]) == ("Stopped", ["Stopping", "Stopped"])


async def test_a_job_that_waits_says_so_and_can_be_stopped(bench: Bench) -> None:
    await bench.server()
    bench.fleet.room.clear()
    bench.create()
    await bench.until(lambda: bench.describe()["SecondaryStatus"] == "Pending")
    bench.call("StopTrainingJob", TrainingJobName="job")
    job = await bench.ended()
    assert job["TrainingJobStatus"] == "Stopped"
    assert "TrainingStartTime" not in job
    assert bench.fleet.started == []
    bench.create("next")
    await bench.until(lambda: bench.describe("next")["SecondaryStatus"] == "Pending")
    bench.fleet.room.set()
    job = await bench.ended("next")
    assert statuses(job) == [
        "Starting", "Pending", "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip


async def test_the_time_limit(bench: Bench) -> None:
    async def never_ends(instance: FakeInstance) -> None:
        await instance.say(Stage("Training"))
        await instance.commands.get()
        await instance.say(Exited(143, stopped=True))
        await instance.say(Uploaded(model_uri="s3://m"))
        await instance.say(Finished())

    bench.fleet.script = never_ends
    await bench.server()
    bench.create(StoppingCondition={"MaxRuntimeInSeconds": 1})
    job = await bench.ended()
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


async def test_a_killed_instance_fails_its_job(bench: Bench) -> None:
    async def hangs(instance: FakeInstance) -> None:
        await instance.say(Stage("Training"))
        await instance.commands.get()
        await instance.say(Finished())

    bench.fleet.script = hangs
    await bench.server()
    bench.create(instances=2)
    await bench.until(lambda: bench.describe()["SecondaryStatus"] == "Training")
    await bench.until(lambda: len(bench.fleet.instances) == 2)
    other = bench.fleet.instances[bench.fleet.started[1]]
    await bench.fleet.kill(bench.fleet.started[0])
    job = await bench.ended()
    assert job["TrainingJobStatus"] == "Failed"
    assert "killed by signal 9" in job["FailureReason"]
    assert any(isinstance(c, Shutdown) for c in other.heard)


async def test_a_fleet_that_cannot_start_fails_the_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(bench.fleet, "start", refuses)
    await bench.server()
    bench.create()
    job = await bench.ended()
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "InternalServerError: An instance could not start: no space left on device"


async def test_a_job_without_a_notification_is_found(bench: Bench) -> None:
    bench.create()
    await bench.server()
    bench.driver, driver = None, bench.driver
    bench.create("unnoticed")
    bench.driver = driver
    for name in ("job", "unnoticed"):
        assert (await bench.ended(name))["TrainingJobStatus"] == "Completed"


async def test_a_name_can_be_used_again_after_deletion(bench: Bench) -> None:
    await bench.server()
    for _ in range(3):
        bench.create()
        await bench.until(lambda: bench.row().status == "Completed")
        bench.call("DeleteTrainingJob", TrainingJobName="job")
    bench.create()
    assert (await bench.ended())["TrainingJobStatus"] == "Completed"


async def test_an_orderly_shutdown_starts_jobs_again(bench: Bench) -> None:
    release = asyncio.Event()

    async def waits_then_trains(instance: FakeInstance) -> None:
        await instance.say(Stage("Training"))
        await release.wait()
        await trains_well(instance)

    bench.fleet.script = waits_then_trains
    await bench.server()
    bench.create()
    await bench.until(lambda: bench.describe()["SecondaryStatus"] == "Training")
    assert bench.driver is not None
    await bench.driver.close()
    await bench.fleet.vanish(bench.fleet.started[0])
    release.set()
    await bench.server()
    job = await bench.ended()
    assert job["TrainingJobStatus"] == "Completed"
    assert statuses(job) == [
        "Starting",
        "Training",
        "Restarting",
        "Starting",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert len(bench.fleet.started) == 2


async def trains_until_stopped(instance: FakeInstance) -> None:
    await instance.say(Stage("Training"))
    await instance.say(Log(((1, "[0]"),)))
    assert isinstance(await instance.commands.get(), Stop)
    await instance.say(Exited(0, stopped=True))
    await instance.say(Uploaded(model_uri="s3://m"))
    await instance.say(Finished())


@pytest.mark.parametrize(
    ("script", "instances", "ends", "after"),
    [
        (trains_well, 1, "Completed", False),
        (trains_well, 2, "Completed", True),
        (trains_until_stopped, 1, "Stopped", True),
    ],
    ids=["before-each-step", "two-hosts-after-each-step", "stopped-after-each-step"],
)
async def test_the_server_may_die_at_any_step(
    tmp_path: Path, script: Script, instances: int, ends: str, after: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Kill the server before or after each single thing it does; the job ends as it would have."""
    empty = Bench(tmp_path)
    await empty.close()
    at = 0
    died = True
    while died:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        shutil.copy(tmp_path / "jobs.db", folder)
        bench = Bench(folder, script)
        try:
            fuse = Fuse(at, after=after)
            await bench.server(fuse)
            bench.create(instances=instances)
            stopper = asyncio.create_task(_stop_when_it_trains(bench)) if ends == "Stopped" else None
            blown = asyncio.create_task(fuse.blown.wait())
            done = asyncio.create_task(bench.ended())
            await asyncio.wait([blown, done], return_when=asyncio.FIRST_COMPLETED, timeout=10)
            died = not done.done()
            blown.cancel()
            done.cancel()
            if died:
                assert fuse.blown.is_set()
                await bench.server()
            job = await bench.ended()
            if stopper is not None:
                await stopper
            assert job["TrainingJobStatus"] == ends, (at, job)
            assert len(bench.fleet.started) == len(set(bench.fleet.started)) == instances, (
                "nothing runs twice"
            )
            if ends == "Completed":
                assert [bench.lines(number=n) for n in range(1, instances + 1)] == [
                    ["[0]", "[1]", "[2]"]
                ] * instances
                assert job["FinalMetricDataList"][0]["Value"] == 2.0
        finally:
            await bench.close()
        caplog.clear()
    assert at > 10


async def _stop_when_it_trains(bench: Bench) -> None:
    await bench.until(lambda: bench.describe()["SecondaryStatus"] == "Training")
    bench.call("StopTrainingJob", TrainingJobName="job")
