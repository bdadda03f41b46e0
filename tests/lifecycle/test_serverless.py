"""Every way a serverless variant's containers can come and go, without a clock or a process."""

from __future__ import annotations

from sagesmith.lifecycle.endpoint import (
    CapacityRequested,
    ContainersIdle,
    ContainerStuck,
    ContainersWanted,
    Deployment,
    Due,
    End,
    EndpointRun,
    Failed,
    InstanceReleased,
    InstanceStarted,
    LastWord,
    Phase,
    Serverless,
    Start,
    Status,
    Unhealthy,
    UpdateRequested,
    Variant,
    create,
    demands,
    serverless_variant,
)
from sagesmith.lifecycle.records import endpoint_document
from tests.lifecycle.test_endpoint import UID, after, name, up


def a_deployment(config: str = "one", *, most: int = 3, provisioned: int = 0) -> Deployment:
    return Deployment(config, (serverless_variant("v", 1.0, Serverless(2048, most, provisioned), {}),))


def in_service(*, most: int = 3, provisioned: int = 0) -> EndpointRun:
    run = create(UID, a_deployment(most=most, provisioned=provisioned), 1000.0)
    assert run.status is Status.CREATING
    return after(run, up(*range(1, max(1, provisioned) + 1)))


def idle(*serials: int) -> ContainersIdle:
    return ContainersIdle(tuple(name(serial) for serial in serials))


def containers(run: EndpointRun) -> list[str]:
    return [instance.instance_id for instance in run.instances]


def test_one_container_proves_that_the_model_is_served_and_ends_when_it_is_idle() -> None:
    run = in_service()
    assert run.status is Status.IN_SERVICE
    run = after(run, [idle(1)])
    assert (containers(run), run.status) == ([], Status.IN_SERVICE)
    assert End(name(1)) in demands(run)
    run = after(run, [LastWord(name(1)), InstanceReleased(name(1))])
    assert run.instance_ids == ()


def test_containers_come_with_the_requests_up_to_the_maximum() -> None:
    run = after(in_service(), [ContainersWanted("v", 0, 2)])
    assert Start(name(2), "v", pending=False) in demands(run)
    run = after(run, [ContainersWanted("v", 0, 9)])
    assert containers(run) == [name(1), name(2), name(3)]
    assert run.status is Status.IN_SERVICE
    run = after(run, [InstanceStarted(name(2)), ContainersWanted("v", 0, 0)])
    assert containers(run) == [name(1), name(2)], "what has not begun to start is given up, no more"
    assert after(run, [ContainersWanted("v", 7, 3), ContainersWanted("w", 0, 3)]) == run


def test_the_first_container_is_not_given_up() -> None:
    run = create(UID, a_deployment(), 1000.0)
    assert after(run, [ContainersWanted("v", 0, 0), idle(1)]) == run


def test_provisioned_containers_stay_and_are_replaced() -> None:
    run = in_service(provisioned=2)
    run = after(run, [ContainersWanted("v", 0, 3), *up(3), idle(1, 2, 3)])
    assert containers(run) == [name(2), name(3)]
    run = after(run, [Failed(name(2), "killed")])
    assert [i.phase for i in run.instances] == [Phase.PAUSED, Phase.READY]
    run = after(run, [Due()], at=1100.0)
    assert containers(run) == [name(4), name(3)]


def test_a_lost_container_is_replaced_by_the_next_request() -> None:
    run = after(in_service(), [Failed(name(1), "killed")])
    assert (containers(run), run.status) == ([], Status.IN_SERVICE)
    run = after(run, [ContainersWanted("v", 0, 1), *up(2), Unhealthy(name(2), "no answer")])
    assert (containers(run), run.ending) == ([], (name(1), name(2)))


def test_a_stuck_container_ends_even_if_it_is_provisioned() -> None:
    run = after(in_service(provisioned=1), [ContainerStuck(name(1))])
    assert (containers(run), run.ending) == ([name(2)], (name(1),))
    run = after(in_service(), [ContainerStuck(name(1))])
    assert containers(run) == []


def test_concurrency_can_be_changed() -> None:
    run = after(in_service(), [CapacityRequested({"v": (None, None)}, concurrency={"v": (5, 2)})])
    assert (run.status, containers(run)) == (Status.UPDATING, [name(1), name(2)])
    run = after(run, up(2))
    assert run.status is Status.IN_SERVICE
    run = after(run, [CapacityRequested({"v": (None, None)}, concurrency={"v": (None, 1)}), idle(1, 2)])
    assert (run.status, containers(run)) == (Status.IN_SERVICE, [name(2)])
    described = endpoint_document({}, run)["ProductionVariants"][0]
    wanted = {"MemorySizeInMB": 2048, "MaxConcurrency": 5, "ProvisionedConcurrency": 1}
    assert described["CurrentServerlessConfig"] == described["DesiredServerlessConfig"] == wanted
    assert "CurrentInstanceCount" not in described


def test_updates_go_from_serverless_to_instances_and_back() -> None:
    run = after(in_service(), [idle(1), UpdateRequested(Deployment("two", (Variant("v", 1.0, 1),)))])
    run = after(run, up(2))
    assert (run.status, containers(run)) == (Status.IN_SERVICE, [name(2)])
    run = after(run, [UpdateRequested(a_deployment("three"))])
    run = after(run, up(3))
    assert (run.status, containers(run)) == (Status.IN_SERVICE, [name(3)])
    assert run.current is not None
    assert run.current.config_name == "three"


def test_a_model_that_cannot_be_served_fails_the_endpoint() -> None:
    run = create(UID, a_deployment(), 1000.0)
    run = after(run, [Failed(name(1), "exit code 1", final=True)])
    assert run.status is Status.FAILED
