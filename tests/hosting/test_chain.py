"""Instances of several containers, against model servers whose answers the tests hold in their hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting.gateway import DIRECT, Answer, Gateway, request_head
from tests.hosting.test_gateway import NAME, REGION, Model, Sink, gateway, models, sink, until_connected

__all__ = ["gateway", "models", "sink"]

HEAD = request_head(b"text/csv", b"application/json", b"mine")


def chain(gateway: Gateway, *models: Model, mode: str = "serial") -> None:
    gateway.set_endpoint(REGION, NAME, {"v": 1.0}, features={"v": [DIRECT] if mode == "direct" else []})
    places = "|".join(f"c{number}={model.address}" for number, model in enumerate(models, start=1))
    gateway.add_instance(REGION, NAME, "v", "i-1", f"{mode}|{places}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def invoke(gateway: Gateway, body: bytes = b"1", head: bytes = HEAD) -> Answer:
    return await asyncio.wait_for(gateway.call(REGION, NAME, head, body), 5)


async def test_a_request_goes_through_all_containers(
    gateway: Gateway, models: list[Model], sink: Sink
) -> None:
    for model in models:
        model.echo = False
    chain(gateway, *models)
    call = asyncio.create_task(invoke(gateway))
    for number, model in enumerate(models):
        at, body = await model.next()
        assert body == b"1" + b"x" * number
        model.answer(at, body + b"x", head=b"type/%d\0" % number)
    answer = await call
    assert answer.body == b"1xxx"
    assert answer.headers.startswith(b"Content-Type: type/2\r\n")
    gateway.flush()
    await asyncio.sleep(0.1)
    assert sum(sink.named("Invocations").counts) == 1, "an invocation counts once"


async def test_types_follow_the_request(gateway: Gateway, models: list[Model]) -> None:
    """Each container is told the content type of what it gets; only the last what the client accepts."""
    for model in models:
        model.echo = False
    chain(gateway, *models)
    call = asyncio.create_task(invoke(gateway))
    heads = []
    for number, model in enumerate(models):
        at, body = await model.next()
        heads.append(model.heads[-1].split(b"\0"))
        model.answer(at, body, head=b"type/%d\0" % number)
    await call
    assert heads == [
        [b"/invocations", b"text/csv", b"", b"mine"],
        [b"/invocations", b"type/0", b"", b"mine"],
        [b"/invocations", b"type/1", b"application/json", b"mine"],
    ]


async def test_a_containers_error_ends_the_way(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    chain(gateway, *models[:2])
    call = asyncio.create_task(invoke(gateway))
    number, _ = await models[0].next()
    models[0].answer(number, b"no such column", status=400)
    with pytest.raises(AwsError, match="no such column") as caught:
        await call
    assert caught.value.members["OriginalStatusCode"] == 400
    assert models[1].got.qsize() == 0


async def test_a_container_that_is_lost_with_a_request(gateway: Gateway, models: list[Model]) -> None:
    models[1].echo = False
    chain(gateway, *models[:2])
    call = asyncio.create_task(invoke(gateway))
    await models[1].next()
    await models[1].stop()
    with pytest.raises(AwsError, match="connection to the container was lost"):
        await call
    await until(lambda: all(not link.connecting for link in gateway._links))
    with pytest.raises(AwsError, match="No instance"):
        await invoke(gateway)
    models[1].echo = True
    await models[1].start()
    await until_connected(gateway)
    assert (await invoke(gateway)).body == b"1"


async def test_a_container_that_does_not_answer(gateway: Gateway, models: list[Model]) -> None:
    models[1].echo = False
    chain(gateway, *models[:2])
    with pytest.raises(AwsError, match="timed out"):
        await invoke(gateway)


async def test_draining_waits_for_the_whole_way(gateway: Gateway, models: list[Model]) -> None:
    models[1].echo = False
    chain(gateway, *models[:2])
    call = asyncio.create_task(invoke(gateway))
    number, body = await models[1].next()
    draining = asyncio.create_task(gateway.drain("i-1"))
    await asyncio.sleep(0.05)
    assert not draining.done()
    models[1].answer(number, body)
    await asyncio.wait_for(draining, 5)
    assert (await call).body == b"1"
    assert not gateway._links


async def test_direct_requests_name_their_container(gateway: Gateway, models: list[Model]) -> None:
    chain(gateway, *models[:2], mode="direct")
    named = request_head(b"text/csv", b"", b"", fields=b"target-container=c2")
    assert (await invoke(gateway, head=named)).body == b"1"
    assert [model.got.qsize() for model in models] == [0, 1, 0]
    for head, words in (
        (HEAD, "must name one"),
        (request_head(b"", b"", b"", fields=b"target-container=c9"), "c9 is none"),
    ):
        with pytest.raises(AwsError, match=words):
            await invoke(gateway, head=head)


async def test_other_models_take_no_container_names(gateway: Gateway, models: list[Model]) -> None:
    chain(gateway, *models[:2])
    with pytest.raises(AwsError, match="TargetContainerHostname cannot be used"):
        await gateway.call(REGION, NAME, HEAD, b"1", needs=frozenset([DIRECT]))
