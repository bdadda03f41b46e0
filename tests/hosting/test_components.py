"""The drivers of components and of endpoints together: copies find homes, move, and survive both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting.components import Components
from sagesmith.hosting.parts import Parts
from tests.hosting.test_endpoints import IMAGE, Bench
from tests.jobs.bench import REGION, ROLE, Fuse


class Shelf(Bench):
    """Both drivers, and an endpoint `e` without models."""

    components: Components | None = None

    def hosts(self, parts: Parts) -> Components:
        own = replace(
            parts, resources=self.resources, fleet=self.fleet, logs=self.logs, metrics=self.metrics,
            identities=self.identities,
        )  # fmt: skip
        self.components = Components(
            own,
            notify_endpoint=lambda arn: self.driver.notify(arn) if self.driver else None,
            idle_s=0.0,
            poll_s=0.05,
        )
        return self.components

    async def server(self, fuse: Fuse | None = None) -> None:
        if self.components is not None:
            await self.components.close()
        before, self.fleet.sweep = self.fleet.sweep, _keep_all  # type: ignore[method-assign]
        await super().server(fuse)
        self.fleet.sweep = before  # type: ignore[method-assign]
        assert self.components is not None
        assert self.driver is not None
        await self.components.start()
        await self.fleet.sweep([*self.driver.instances(), *self.components.instances()])

    async def close(self) -> None:
        if self.components is not None:
            await self.components.close()
        await super().close()

    def host(self, config: str = "c", count: int = 1, **more: Any) -> None:
        variant = {"VariantName": "all", "InstanceType": "ml.m5.large", "InitialInstanceCount": count, **more}
        self(
            "CreateEndpointConfig",
            EndpointConfigName=config,
            ExecutionRoleArn=ROLE,
            ProductionVariants=[variant],
        )

    def create(self, name: str = "k", copies: int = 1, memory: int = 4096) -> None:
        self(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName="e",
            Specification={
                "Container": {"Image": IMAGE},
                "ComputeResourceRequirements": {"MinMemoryRequiredInMb": memory},
            },
            RuntimeConfig={"CopyCount": copies},
        )

    def component(self, name: str = "k") -> dict[str, Any]:
        described: dict[str, Any] = self("DescribeInferenceComponent", InferenceComponentName=name)
        return described

    def has(self, name: str) -> bool:
        return self.resources.get("inference-component", REGION, name) is not None

    async def settled(self, name: str = "k", status: str = "InService") -> dict[str, Any]:
        await self.until(lambda: self.component(name)["InferenceComponentStatus"] == status)
        return self.component(name)

    def on(self, home: str) -> list[str]:
        """The copies on an instance that are routed to."""
        return [
            i.id
            for i in self.fleet.instances.values()
            if i.spec.inside == home and i.id in self.gateway.routes
        ]

    @property
    def homes(self) -> list[str]:
        return [i.id for i in self.fleet.instances.values() if not i.spec.inside]


async def _keep_all(keep: object) -> None:
    pass


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    shelf = Shelf(tmp_path)
    await shelf.server()
    shelf.host()
    shelf("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    await shelf.status("InService")
    yield shelf
    await shelf.close()


async def test_copies_are_on_instances_and_waited_for(shelf: Shelf) -> None:
    assert shelf.gateway.weights["e"] == {}
    shelf.create(copies=2)
    described = await shelf.settled()
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
    (home,) = shelf.homes
    assert len(shelf.on(home)) == 2
    assert shelf.gateway.weights["inference-component/k"] == {"all": 1.0}
    shelf.create("other")
    assert "CapacityError" in (await shelf.settled("other", "Failed"))["FailureReason"]
    with pytest.raises(AwsError, match="hosts the inference components"):
        shelf("DeleteEndpoint", EndpointName="e")
    for name in ("k", "other"):
        shelf("DeleteInferenceComponent", InferenceComponentName=name)
    await shelf.until(lambda: shelf.homes == list(shelf.fleet.instances))
    await shelf.until(lambda: not any(map(shelf.has, ("k", "other"))))
    shelf("DeleteEndpoint", EndpointName="e")
    await shelf.until(lambda: not shelf.exists())


async def test_a_copy_takes_the_room_that_another_leaves(shelf: Shelf) -> None:
    shelf.create("first", copies=2)
    await shelf.settled("first")
    shelf.create("second", copies=0)
    await shelf.settled("second")
    shelf(
        "UpdateInferenceComponentRuntimeConfig",
        InferenceComponentName="second",
        DesiredRuntimeConfig={"CopyCount": 1},
    )
    await shelf.until(lambda: "FailureReason" in shelf.component("second"))
    assert shelf.component("second")["RuntimeConfig"]["CurrentCopyCount"] == 0
    shelf("DeleteInferenceComponent", InferenceComponentName="first")
    await shelf.until(lambda: shelf.component("second")["RuntimeConfig"]["CurrentCopyCount"] == 1)
    assert "FailureReason" not in shelf.component("second")


async def test_copies_survive_the_server_and_come_back_after_their_instance(shelf: Shelf) -> None:
    shelf.create(copies=2)
    await shelf.settled()
    (home,), before = shelf.homes, sorted(shelf.fleet.instances)
    await shelf.server()
    await shelf.until(lambda: len(shelf.on(home)) == 2)
    assert sorted(shelf.fleet.instances) == before
    await shelf.fleet.kill(home)
    await shelf.until(lambda: shelf.homes and shelf.homes != [home] and len(shelf.on(shelf.homes[-1])) == 2)
    await shelf.until(lambda: len(shelf.fleet.instances) == 3)


async def test_an_update_of_the_endpoint_moves_copies(shelf: Shelf) -> None:
    shelf.create()
    await shelf.settled()
    (home,) = shelf.homes
    shelf.host("larger", InstanceType="ml.m5.xlarge")
    shelf("UpdateEndpoint", EndpointName="e", EndpointConfigName="larger")
    await shelf.until(lambda: home not in shelf.homes)
    (other,) = shelf.homes
    assert len(shelf.on(other)) == 1, "its successor was there before it went"
    shelf.configure("models", all=1)
    with pytest.raises(AwsError, match="has no variant all for inference components"):
        shelf("UpdateEndpoint", EndpointName="e", EndpointConfigName="models")


async def test_instances_come_and_go_with_copies(shelf: Shelf) -> None:
    scaling = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 2}
    shelf.host("managed", ManagedInstanceScaling=scaling)
    shelf("UpdateEndpoint", EndpointName="e", EndpointConfigName="managed")
    await shelf.status("InService")
    shelf.create(copies=4)
    await shelf.settled()
    assert len(shelf.homes) == 2
    assert [len(shelf.on(home)) for home in shelf.homes] == [2, 2]
    shelf(
        "UpdateInferenceComponentRuntimeConfig",
        InferenceComponentName="k",
        DesiredRuntimeConfig={"CopyCount": 1},
    )
    await shelf.until(lambda: len(shelf.homes) == 1)
    assert len(shelf.on(shelf.homes[0])) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Specification": None}, "Specification must be given"),
        ({"VariantName": "none"}, "has no variant none"),
        ({"BaseInferenceComponentName": "k"}, "adapter"),
        ({"ModelName": "m"}, "Exactly one of Specification.ModelName and Specification.Container"),
        ({"InstanceType": "ml.m5.xlarge"}, "has instances of type ml.m5.large"),
        ({"ComputeResourceRequirements": None}, "ComputeResourceRequirements must be given"),
        (
            {"ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512, "MaxMemoryRequiredInMb": 256}},
            "must not be below",
        ),
    ],
)
async def test_bad_components_are_refused(shelf: Shelf, change: dict[str, Any], message: str) -> None:
    specification: dict[str, Any] = {
        "Container": {"Image": IMAGE},
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512},
    }
    request: dict[str, Any] = {
        "InferenceComponentName": "k", "EndpointName": "e", "Specification": specification,
    }  # fmt: skip
    for member, value in change.items():
        place = request if member in ("Specification", "VariantName") else specification
        place[member] = value
        if value is None:
            del place[member]
    with pytest.raises(AwsError, match=message):
        shelf("CreateInferenceComponent", **request)


async def test_bad_configurations_are_refused(shelf: Shelf) -> None:
    with pytest.raises(AwsError, match="ExecutionRoleArn must be given"):
        shelf(
            "CreateEndpointConfig",
            EndpointConfigName="x",
            ProductionVariants=[
                {"VariantName": "all", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
            ],
        )
    with pytest.raises(AwsError, match="must not be above MaxInstanceCount"):
        shelf.host(
            "x", ManagedInstanceScaling={"Status": "ENABLED", "MinInstanceCount": 3, "MaxInstanceCount": 2}
        )
    with pytest.raises(AwsError, match="CONSOLIDATION"):
        shelf.host("x", ManagedInstanceScaling={"ScaleInPolicy": {"Strategy": "CONSOLIDATION"}})
