"""A driver of training jobs on a real database and a fake fleet, which can be killed at any step."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sagesmith.aws.call import Call, Caller
from sagesmith.images import resolve
from sagesmith.instance.spec import (
    Exited,
    Finished,
    Log,
    MergeArtifacts,
    MetricValue,
    ServerAddress,
    Shutdown,
    Stage,
    Stop,
    TrainingTask,
    Uploaded,
)
from sagesmith.jobs import TrainingJobs
from sagesmith.services import sagemaker
from sagesmith.store.database import Database
from sagesmith.store.identities import Identities
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resource, Resources
from tests.fleet.fake import FakeFleet, FakeInstance

REGION = "us-east-1"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/R"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
CALLER = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/ann", "AIDA", "AKIA")


async def trains_well(instance: FakeInstance) -> None:
    """Everything that an instance says whose training goes well, or is stopped between two steps."""
    task = instance.spec.task
    assert isinstance(task, TrainingTask)
    several = len(instance.spec.hosts) > 1
    code = 0
    await instance.say(Stage("Downloading"))
    await instance.say(Stage("Training"))
    for number in range(3):
        now = int(time.time())
        await instance.say(Log(((now * 1000, f"[{number}]#011train-rmse:{number}.0"),)))
        await instance.say(MetricValue("train:rmse", float(number), now))
        if not instance.commands.empty():
            command = instance.commands.get_nowait()
            if isinstance(command, Shutdown):
                await instance.say(Finished())
                return
            assert isinstance(command, Stop)
            code = 143
            break
    await instance.say(Exited(code, stopped=code != 0))
    await instance.say(Stage("Uploading"))
    if several:
        await instance.say(Uploaded(part_uri=f"{task.output_uri}/{instance.spec.host}"))
        while True:
            command = await instance.commands.get()
            if isinstance(command, MergeArtifacts):
                await instance.say(Uploaded(model_uri=f"{task.output_uri}/model.tar.gz"))
            if not isinstance(command, Stop):
                break
    else:
        await instance.say(Uploaded(model_uri=f"{task.output_uri}/model.tar.gz"))
    await instance.say(Finished())


class RoleKeys(Identities):
    """The identities of a bench, and which keys of roles work."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, ACCOUNT)
        self._stored = database

    @property
    def working(self) -> set[str]:
        with self._stored.read() as connection:
            return {row[0] for row in connection.rows("select access_key_id from iam_keys")}


class Killed(Exception):
    """The server does not live any more."""


class Fuse:
    """Lets the server die at its *at*-th step, before or after it is done; from then on nothing works any more."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.steps = 0
        self.blown = asyncio.Event()
        self._dead = False
        self._loop = asyncio.get_running_loop()

    def _blow(self) -> None:
        self._dead = True
        self._loop.call_soon_threadsafe(self.blown.set)
        raise Killed

    def enter(self) -> bool:
        if self._dead:
            raise Killed
        self.steps += 1
        last = self.steps == self.at
        if last and not self.after:
            self._blow()
        return last

    def leave(self, last: bool) -> None:
        if last or self._dead:
            self._blow()

    def guard(self, inner: Any) -> Any:
        return _Guarded(inner, self)


class _Guarded:
    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value
        if inspect.iscoroutinefunction(value):

            async def call_async(*args: Any, **options: Any) -> Any:
                last = self._fuse.enter()
                result = await value(*args, **options)
                self._fuse.leave(last)
                return result

            return call_async

        def call(*args: Any, **options: Any) -> Any:
            last = self._fuse.enter()
            result = value(*args, **options)
            self._fuse.leave(last)
            return result

        return call


class Bench:
    """Database, fleet and handlers of one home; `server()` starts a driver on them."""

    def __init__(self, folder: Path, script: Callable[[FakeInstance], Any] = trains_well) -> None:
        self.database = Database(f"sqlite:///{folder / 'jobs.db'}")
        self.database.migrate()
        self.resources = Resources(self.database)
        self.logs = Logs(self.database)
        self.metrics = Metrics(self.database)
        self.identities = RoleKeys(self.database)
        self.fleet = FakeFleet(script)
        self.driver: TrainingJobs | None = None
        self._handlers = sagemaker.handlers(
            resources=self.resources,
            notify_job=self._notify,
            notify_endpoint=lambda arn: None,
            check_instance_type=self.fleet.shape,
            has_object=lambda bucket, key: True,
            default_role_arn=ROLE,
            owner="server",
        )[0]

    def _notify(self, arn: str) -> None:
        if self.driver is not None:
            self.driver.notify(arn)

    async def server(self, fuse: Fuse | None = None) -> None:
        """Start a driver; an earlier one is gone without a word."""
        if self.driver is not None:
            self.fleet.detach()
            await self.driver.close()
        guard: Callable[[Any], Any] = fuse.guard if fuse is not None else lambda inner: inner
        self.driver = TrainingJobs(
            resources=guard(self.resources),
            fleet=guard(self.fleet),
            logs=guard(self.logs),
            metrics=guard(self.metrics),
            identities=guard(self.identities),
            server=lambda: ServerAddress("http://127.0.0.1:1"),
            account_id=ACCOUNT,
            resolve=resolve,
            poll_s=0.05,
        )
        try:
            await self.driver.start()
        except Killed:
            return
        await self.fleet.sweep(self.driver.instances())

    async def close(self) -> None:
        if self.driver is not None:
            await self.driver.close()
        await self.fleet.close(end_instances=True)
        self.database.close()

    def call(self, operation: str, **request: Any) -> Any:
        call = Call("sagemaker", operation, REGION, ACCOUNT, CALLER, "request", 0.0)
        method = {
            "CreateTrainingJob": "create_training_job",
            "DescribeTrainingJob": "describe_training_job",
            "StopTrainingJob": "stop_training_job",
            "DeleteTrainingJob": "delete_training_job",
        }[operation]
        return getattr(self._handlers, method)(call, request)

    def create(self, name: str = "job", instances: int = 1, **more: Any) -> None:
        self.call("CreateTrainingJob", **a_training_job(name, instances, **more))

    def row(self, name: str = "job") -> Resource:
        row = self.resources.get("training-job", REGION, name)
        assert row is not None
        return row

    def describe(self, name: str = "job") -> dict[str, Any]:
        described: dict[str, Any] = self.call("DescribeTrainingJob", TrainingJobName=name)
        return described

    async def until(self, what: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not what():
                await asyncio.sleep(0.002)

    async def ended(self, name: str = "job") -> dict[str, Any]:
        await self.until(lambda: self.row(name).status in ("Completed", "Failed", "Stopped"))
        await self.until(lambda: not self.identities.working and not self.fleet.instances)
        return self.describe(name)

    def lines(self, name: str = "job", number: int = 1) -> list[str]:
        epoch = int(self.row(name).created)
        page = self.logs.get("/aws/sagemaker/TrainingJobs", f"{name}/algo-{number}-{epoch}", region=REGION)
        return [event.text.partition("#")[0] for event in page.events]


def a_training_job(name: str = "job", instances: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": {"num_round": "5"},
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/train/"}},
            }
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": instances, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }
