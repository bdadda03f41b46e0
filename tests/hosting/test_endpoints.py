"""The driver of endpoints: they come up, are updated, crash, and survive the server's death."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sagesmith.aws.call import Call, Caller, marked_operations
from sagesmith.errors import AwsError
from sagesmith.hosting._gateway_serverless import Concurrency
from sagesmith.hosting.capacity import ProvisionedConcurrency, VariantCapacity
from sagesmith.hosting.endpoints import Endpoints
from sagesmith.hosting.parts import Hosts, NoHosts, Parts
from sagesmith.instance.spec import Finished, Log, Ready, ServerAddress, ServingTask, Shutdown, Unhealthy
from sagesmith.services import sagemaker
from sagesmith.store.database import Database
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resources
from tests.fleet.fake import FakeFleet, FakeInstance, Script
from tests.jobs.bench import ACCOUNT, CALLER, REGION, ROLE, Fuse, Killed, RoleKeys

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
assert isinstance(CALLER, Caller)


async def serves(instance: FakeInstance) -> None:
    await instance.say(Log(((1, "Starting the server"),)))
    await instance.say(Ready(f"unix:/run/{instance.id}"))
    while not isinstance(await instance.commands.get(), Shutdown):
        pass
    await instance.say(Finished())


async def cannot(instance: FakeInstance) -> None:
    await instance.say(Finished("no model file in /opt/ml/model"))


class FakeGateway:
    """A routing table that shows what it knows: endpoint name to variant to weight and instances."""

    def __init__(self) -> None:
        self.weights: dict[str, Mapping[str, float]] = {}
        self.routes: dict[str, tuple[str, str, str]] = {}

    def set_endpoint(
        self,
        region: str,
        name: str,
        variants: Mapping[str, float],
        *,
        features: Mapping[str, Collection[str]] = MappingProxyType({}),
        shadows: Mapping[str, float] = MappingProxyType({}),
        component_of: str = "",
        serverless: Mapping[str, Concurrency] = MappingProxyType({}),
    ) -> None:
        self.weights[name] = dict(variants)
        self.routes = {i: r for i, r in self.routes.items() if r[0] != name or r[1] in variants}

    def remove_endpoint(self, region: str, name: str) -> None:
        self.weights.pop(name, None)
        self.routes = {i: r for i, r in self.routes.items() if r[0] != name}

    def add_instance(self, region: str, name: str, variant: str, instance_id: str, address: str) -> None:
        assert variant in self.weights[name]
        self.routes[instance_id] = (name, variant, address)

    def remove_instance(self, instance_id: str) -> None:
        self.routes.pop(instance_id, None)

    def could_not_start(self, region: str, name: str, variant: str, instance_id: str, reason: str) -> None:
        pass

    async def drain(self, instance_id: str) -> None:
        self.remove_instance(instance_id)


class Bench:
    """Database, fleet and handlers of one home; `server()` starts a driver with a new gateway on them."""

    def __init__(self, folder: Path, script: Script = serves) -> None:
        self.database = Database(f"sqlite:///{folder / 'endpoints.db'}")
        self.database.migrate()
        self.resources = Resources(self.database)
        self.logs, self.metrics = Logs(self.database), Metrics(self.database)
        self.identities = RoleKeys(self.database)
        self.fleet = FakeFleet(script)
        self.gateway = FakeGateway()
        self.driver: Endpoints | None = None
        self.raised: set[str] = set()
        handlers = sagemaker.handlers(
            resources=self.resources,
            notify_job=lambda arn: None,
            notify_endpoint=lambda arn: self.driver.notify(arn) if self.driver else None,
            check_instance_type=self.fleet.shape,
            has_object=lambda bucket, key: True,
            default_role_arn=ROLE,
            has_alarm=lambda region, name: True,
            owner="server",
        )
        self._operations = {mark.name: bound for each in handlers for mark, bound in marked_operations(each)}

    def __call__(self, operation: str, **request: Any) -> Any:
        call = Call("sagemaker", operation, REGION, ACCOUNT, CALLER, "request", 0.0)
        return self._operations[operation](call, request)

    async def server(self, fuse: Fuse | None = None) -> None:
        """Start a driver; an earlier one is gone without a word."""
        if self.driver is not None:
            self.fleet.detach()
            await self.driver.close()
        guard = fuse.guard if fuse is not None else lambda inner: inner
        self.gateway = FakeGateway()
        parts = Parts(
            resources=guard(self.resources),
            fleet=guard(self.fleet),
            gateway=self.gateway,
            logs=guard(self.logs),
            metrics=guard(self.metrics),
            identities=guard(self.identities),
            server=lambda: ServerAddress("http://127.0.0.1:1"),
            account_id=ACCOUNT,
            raised=lambda region, names, since: [name for name in names if name in self.raised],
        )
        self.driver = Endpoints(replace(parts, hosts=self.hosts(parts)), poll_s=0.05)
        try:
            await self.driver.start()
        except Killed:
            return
        await self.fleet.sweep(self.driver.instances())

    def hosts(self, parts: Parts) -> Hosts:
        """Who has copies on the instances: nobody."""
        return NoHosts()

    async def close(self) -> None:
        if self.driver is not None:
            await self.driver.close()
        await self.fleet.close(end_instances=True)
        self.database.close()

    def deploy(self, name: str = "e", config: str = "one", **variants: int) -> None:
        """Make model, configuration and endpoint."""
        self.configure(config, **variants)
        self("CreateEndpoint", EndpointName=name, EndpointConfigName=config)

    def configure(self, config: str = "one", **variants: int) -> None:
        if self.resources.get("model", REGION, "m") is None:
            container = {
                "Image": IMAGE,
                "ModelDataUrl": "s3://bucket/model.tar.gz",
                "Environment": {"A": "1"},
            }
            self("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        self(
            "CreateEndpointConfig",
            EndpointConfigName=config,
            ProductionVariants=[
                {
                    "VariantName": variant,
                    "ModelName": "m",
                    "InstanceType": "ml.m5.xlarge",
                    "InitialInstanceCount": count,
                }
                for variant, count in (variants or {"blue": 1}).items()
            ],
        )

    def describe(self, name: str = "e") -> dict[str, Any]:
        described: dict[str, Any] = self("DescribeEndpoint", EndpointName=name)
        return described

    def exists(self, name: str = "e") -> bool:
        try:
            self.describe(name)
        except AwsError as error:
            if error.code == "ValidationException" and "Could not find endpoint" in error.message:
                return False
            raise
        return True

    async def until(self, what: Any, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not what():
                await asyncio.sleep(0.002)

    async def status(self, status: str, name: str = "e") -> dict[str, Any]:
        await self.until(lambda: self.describe(name)["EndpointStatus"] == status)
        return self.describe(name)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.server()
    yield bench
    await bench.close()


async def test_an_endpoint_comes_up_and_goes(bench: Bench) -> None:
    bench.deploy(blue=2, green=1)
    assert bench.describe()["EndpointStatus"] == "Creating"
    endpoint = await bench.status("InService")
    assert [v["CurrentInstanceCount"] for v in endpoint["ProductionVariants"]] == [2, 1]
    assert bench.gateway.weights == {"e": {"blue": 1.0, "green": 1.0}}
    assert sorted(route[1] for route in bench.gateway.routes.values()) == ["blue", "blue", "green"]
    specs = [instance.spec for instance in bench.fleet.instances.values()]
    spec = next(spec for spec in specs if spec.log_stream.startswith("blue/"))
    assert spec.log_group == "/aws/sagemaker/Endpoints/e"
    assert spec.log_stream == f"blue/{spec.instance_id}"
    assert spec.container.command == ("python", "-m", "sagesmith_algorithms", "serve")
    assert spec.container.environment["A"] == "1"
    assert isinstance(spec.task, ServingTask)
    assert spec.task.model_data == "s3://bucket/model.tar.gz"
    page = bench.logs.get(spec.log_group, spec.log_stream, region=REGION)
    assert [event.text for event in page.events] == ["Starting the server"]

    bench("DeleteEndpointConfig", EndpointConfigName="one")
    bench("DeleteEndpoint", EndpointName="e")
    await bench.until(lambda: not bench.exists())
    assert bench.gateway.weights == {}
    assert not bench.fleet.instances
    assert not bench.identities.working
    bench.deploy()
    await bench.status("InService")


async def test_an_endpoint_that_does_not_come_up(bench: Bench) -> None:
    bench.fleet.script = cannot
    bench.deploy()
    endpoint = await bench.status("Failed")
    assert "no model file" in endpoint["FailureReason"]
    assert bench.gateway.weights == {}
    await bench.until(lambda: not bench.fleet.instances)
    with pytest.raises(AwsError, match="in status Failed"):
        bench("UpdateEndpoint", EndpointName="e", EndpointConfigName="one")
    bench("DeleteEndpoint", EndpointName="e")
    await bench.until(lambda: not bench.exists())


async def test_an_update(bench: Bench) -> None:
    bench.deploy(blue=1)
    await bench.status("InService")
    bench.configure("two", green=2)
    bench.fleet.room.clear()
    bench("UpdateEndpoint", EndpointName="e", EndpointConfigName="two")
    endpoint = bench.describe()
    assert endpoint["EndpointStatus"] == "Updating"
    assert endpoint["PendingDeploymentSummary"]["EndpointConfigName"] == "two"
    with pytest.raises(AwsError, match="Cannot update in-progress endpoint"):
        bench("UpdateEndpoint", EndpointName="e", EndpointConfigName="two")
    assert bench.gateway.weights == {"e": {"blue": 1.0}}
    bench.fleet.room.set()
    endpoint = await bench.status("InService")
    assert endpoint["EndpointConfigName"] == "two"
    await bench.until(lambda: len(bench.fleet.instances) == 2)
    assert sorted(route[1] for route in bench.gateway.routes.values()) == ["green\x001", "green\x001"]


async def test_an_update_that_fails(bench: Bench) -> None:
    bench.deploy(blue=1)
    await bench.status("InService")
    bench.configure("two", blue=1)
    bench.fleet.script = cannot
    bench("UpdateEndpoint", EndpointName="e", EndpointConfigName="two")
    await bench.until(lambda: "FailureReason" in bench.describe())
    endpoint = bench.describe()
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "one")
    assert len(bench.gateway.routes) == 1


def canary(wait_s: int) -> dict[str, Any]:
    size = {"Type": "CAPACITY_PERCENT", "Value": 50}
    routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": wait_s}
    return {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
    }


async def test_a_canary_outlives_the_server(bench: Bench) -> None:
    bench.deploy(blue=2)
    await bench.status("InService")
    bench.configure("two", blue=2)
    bench("UpdateEndpoint", EndpointName="e", EndpointConfigName="two", DeploymentConfig=canary(1))
    await bench.until(lambda: bench.gateway.weights["e"] == {"blue": 0.5, "blue\x001": 0.5})
    await bench.until(
        lambda: (
            [
                v["CurrentInstanceCount"]
                for v in bench.describe()["PendingDeploymentSummary"]["ProductionVariants"]
            ]
            == [2]
        )
    )
    await bench.server()
    assert bench.gateway.weights["e"] == {"blue": 0.5, "blue\x001": 0.5}
    assert len(bench.gateway.routes) == 4
    endpoint = await bench.status("InService")
    assert endpoint["EndpointConfigName"] == "two"
    assert bench.gateway.weights["e"] == {"blue\x001": 1.0}
    await bench.until(lambda: len(bench.fleet.instances) == 2)


async def test_an_alarm_takes_an_update_back(bench: Bench) -> None:
    bench.deploy(blue=1)
    await bench.status("InService")
    first = list(bench.gateway.routes)
    bench.configure("two", blue=1)
    bench("UpdateEndpoint", EndpointName="e", EndpointConfigName="two", DeploymentConfig=canary(600))
    await bench.until(lambda: len(bench.gateway.routes) == 2)
    bench.raised.add("errors")
    await bench.until(lambda: "FailureReason" in bench.describe())
    endpoint = await bench.status("InService")
    assert endpoint["EndpointConfigName"] == "one"
    assert "alarm errors is in state ALARM" in endpoint["FailureReason"]
    assert list(bench.gateway.routes) == first
    await bench.until(lambda: len(bench.fleet.instances) == 1)


async def test_capacity_is_read_and_changed(bench: Bench) -> None:
    capacity = VariantCapacity(
        bench.resources, lambda arn: bench.driver.notify(arn) if bench.driver else None
    )
    resource = "endpoint/e/variant/blue"
    assert capacity.read(REGION, resource) is None
    with pytest.raises(AwsError, match="Could not find the endpoint"):
        capacity.change(REGION, resource, 2)
    bench.deploy(blue=1)
    await bench.status("InService")
    assert capacity.read(REGION, resource) == (1, True)
    assert capacity.read(REGION, "endpoint/e/variant/red") is None
    capacity.change(REGION, resource, 3)
    count, complete = capacity.read(REGION, resource) or (0, True)
    assert (count, complete) == (3, False)
    with pytest.raises(AwsError, match="in status Updating"):
        capacity.change(REGION, resource, 2)
    await bench.until(lambda: capacity.read(REGION, resource) == (3, True))
    assert len(bench.gateway.routes) == 3


async def test_provisioned_concurrency_is_read_and_changed(bench: Bench) -> None:
    def notify(arn: str) -> None:
        if bench.driver is not None:
            bench.driver.notify(arn)

    bench.configure("other", blue=1)  # makes the model
    config = {"MemorySizeInMB": 1024, "MaxConcurrency": 3, "ProvisionedConcurrency": 1}
    variant = {"VariantName": "blue", "ModelName": "m", "ServerlessConfig": config}
    bench("CreateEndpointConfig", EndpointConfigName="one", ProductionVariants=[variant])
    bench("CreateEndpoint", EndpointName="e", EndpointConfigName="one")
    await bench.status("InService")
    resource = "endpoint/e/variant/blue"
    assert VariantCapacity(bench.resources, notify).read(REGION, resource) is None, "it has no instances"
    concurrency = ProvisionedConcurrency(bench.resources, notify)
    assert concurrency.read(REGION, resource) == (1, True)
    assert concurrency.limits(REGION, resource) == (0, 3)
    with pytest.raises(AwsError, match="less than or equal to MaxConcurrency"):
        concurrency.change(REGION, resource, 4)
    concurrency.change(REGION, resource, 2)
    await bench.until(lambda: concurrency.read(REGION, resource) == (2, True))
    assert len(bench.gateway.routes) == 2


async def test_weights_and_capacities(bench: Bench) -> None:
    bench.deploy(blue=1, green=1)
    await bench.status("InService")
    bench(
        "UpdateEndpointWeightsAndCapacities",
        EndpointName="e",
        DesiredWeightsAndCapacities=[
            {"VariantName": "blue", "DesiredWeight": 0.0, "DesiredInstanceCount": 3},
            {"VariantName": "green", "DesiredWeight": 2.0},
        ],
    )
    endpoint = await bench.status("InService")
    assert [v["CurrentInstanceCount"] for v in endpoint["ProductionVariants"]] == [3, 1]
    assert bench.gateway.weights == {"e": {"blue": 0.0, "green": 2.0}}
    with pytest.raises(AwsError, match="no variant red"):
        bench(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName="e",
            DesiredWeightsAndCapacities=[{"VariantName": "red", "DesiredWeight": 1.0}],
        )


async def test_a_crashed_instance_is_replaced_while_the_other_serves(bench: Bench) -> None:
    bench.deploy(blue=2)
    await bench.status("InService")
    first, second = bench.fleet.started
    await bench.fleet.kill(first)
    await bench.until(lambda: list(bench.gateway.routes) == [second])
    assert bench.describe()["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    await bench.until(lambda: len(bench.gateway.routes) == 2)
    assert first not in bench.fleet.instances
    assert bench.describe()["EndpointStatus"] == "InService"
    instance = bench.fleet.instances[second]
    await instance.say(Unhealthy("no answer to /ping"))
    assert second not in bench.gateway.routes
    await instance.say(Ready("unix:/run/other"))
    assert bench.gateway.routes[second] == ("e", "blue", "unix:/run/other")


async def test_a_new_server_finds_the_instances_that_serve(bench: Bench) -> None:
    bench.deploy(blue=2)
    await bench.status("InService")
    started = list(bench.fleet.started)
    await bench.server()
    assert sorted(bench.gateway.routes) == sorted(started)
    assert bench.fleet.started == started


async def test_after_an_orderly_shutdown_endpoints_come_up_again(bench: Bench) -> None:
    bench.deploy(blue=1)
    await bench.status("InService")
    assert bench.driver is not None
    await bench.driver.close()
    await bench.fleet.vanish(bench.fleet.started[0])
    bench.fleet.room.clear()
    await bench.server()
    endpoint = bench.describe()
    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 0, "it says what is there"
    assert bench.gateway.weights == {"e": {"blue": 1.0}}
    bench.fleet.room.set()
    await bench.until(lambda: len(bench.gateway.routes) == 1)
    assert bench.identities.working == {bench.fleet.instances[bench.fleet.started[1]].spec.role.access_key_id}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_the_server_may_die_at_any_step(
    tmp_path: Path, after: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Kill the server before or after each single thing it does while an endpoint comes up and goes."""
    empty = Bench(tmp_path)
    empty.configure(blue=1)
    await empty.close()
    at = 0
    died = True
    while died:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        shutil.copy(tmp_path / "endpoints.db", folder)
        bench = Bench(folder)
        try:
            fuse = Fuse(at, after=after)
            await bench.server(fuse)
            bench("CreateEndpoint", EndpointName="e", EndpointConfigName="one")
            died = await _dies_before(
                bench, fuse, lambda bench=bench: bench.describe()["EndpointStatus"] == "InService"
            )
            endpoint = await bench.status("InService")
            assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 1
            await bench.until(lambda bench=bench: len(bench.gateway.routes) == 1)
            assert len(bench.fleet.started) == len(set(bench.fleet.started)), "no instance is started twice"
            bench("DeleteEndpoint", EndpointName="e")
            died = await _dies_before(bench, fuse, lambda bench=bench: not bench.exists()) or died
            await bench.until(lambda bench=bench: not bench.exists())
            await bench.until(lambda bench=bench: not bench.fleet.instances)
            assert not bench.identities.working
            assert bench.gateway.weights == {}
        finally:
            await bench.close()
        caplog.clear()
    assert at > 10


async def _dies_before(bench: Bench, fuse: Fuse, what: Any) -> bool:
    """Wait until *what* is so or the server has died, in which case a new one is started."""
    blown = asyncio.create_task(fuse.blown.wait())
    done = asyncio.create_task(bench.until(what))
    await asyncio.wait([blown, done], return_when=asyncio.FIRST_COMPLETED, timeout=10)
    died = fuse.blown.is_set() and not getattr(bench, "restarted", False)
    blown.cancel()
    done.cancel()
    await asyncio.gather(blown, done, return_exceptions=True)
    if died:
        bench.restarted = True  # type: ignore[attr-defined]
        await bench.server()
    return died
