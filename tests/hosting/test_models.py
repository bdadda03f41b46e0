"""Instances with many models, whose agent and model servers the tests hold in their hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting._gateway_models import ModelsLink
from sagesmith.hosting.gateway import MODELS, Answer, Gateway, request_head
from tests.hosting.test_gateway import NAME, REGION, Model, Sink, gateway, models, sink, until_connected

__all__ = ["gateway", "models", "sink"]


class Agent(Model):
    """An agent that is told what to answer: orders come as (number, path, model)."""

    async def order(self) -> tuple[int, str, str]:
        number, body = await self.next()
        return number, self.heads[-1].partition(b"\0")[0].decode(), body.decode()


@pytest.fixture
async def agent(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path / "agent.sock", echo=False)
    await agent.start()
    gateway.set_endpoint(REGION, NAME, {"v": 1.0}, features={"v": [MODELS]})
    gateway.add_instance(REGION, NAME, "v", "i-1", f"models|{agent.address}")
    await until_connected(gateway)
    yield agent
    await agent.stop()


def ask(gateway: Gateway, model: str, body: bytes = b"1") -> asyncio.Task[Answer]:
    head = request_head(b"text/csv", b"", b"", fields=f"target-model={model}".encode() if model else b"")
    return asyncio.create_task(gateway.call(REGION, NAME, head, body))


async def loaded(gateway: Gateway, agent: Agent, model: str, server: Model) -> None:
    """Load *model* by asking for it; it answers."""
    call = ask(gateway, model)
    number, path, name = await agent.order()
    assert (path, name) == ("/models/load", model)
    agent.answer(number, server.address.encode())
    assert (await asyncio.wait_for(call, 5)).body == b"1"


def link(gateway: Gateway) -> ModelsLink:
    found = gateway._instances["i-1"]
    assert isinstance(found, ModelsLink)
    return found


async def test_a_model_is_loaded_once_for_all_that_wait(
    gateway: Gateway, agent: Agent, models: list[Model], sink: Sink
) -> None:
    calls = [ask(gateway, "a.tar.gz", b"%d" % n) for n in range(4)]
    number, path, name = await agent.order()
    assert (path, name) == ("/models/load", "a.tar.gz")
    await asyncio.sleep(0.05)
    assert agent.got.empty(), "it is asked once"
    agent.answer(number, models[0].address.encode())
    answers = await asyncio.wait_for(asyncio.gather(*calls), 5)
    assert [answer.body for answer in answers] == [b"0", b"1", b"2", b"3"]
    assert (await asyncio.wait_for(ask(gateway, "a.tar.gz"), 5)).body == b"1"
    assert link(gateway).loaded == 1
    gateway.flush()
    await asyncio.sleep(0.1)
    assert dict(zip(sink.named("ModelCacheHit").values, sink.named("ModelCacheHit").counts, strict=True)) == {
        0.0: 4, 1.0: 1,
    }  # fmt: skip
    assert list(sink.named("LoadedModelCount").values) == [1.0]
    assert sum(sink.named("ModelLoadingWaitTime").counts) == 4


async def test_the_model_that_was_not_used_for_longest_makes_room(
    gateway: Gateway, agent: Agent, models: list[Model]
) -> None:
    await loaded(gateway, agent, "a", models[0])
    await loaded(gateway, agent, "b", models[1])
    await asyncio.wait_for(ask(gateway, "a"), 5)
    call = ask(gateway, "c")
    number, _, _ = await agent.order()
    agent.answer(number, b"2 models take all", status=507)
    number, path, name = await agent.order()
    assert (path, name) == ("/models/unload", "b")
    agent.answer(number, b"")
    number, path, name = await agent.order()
    assert (path, name) == ("/models/load", "c")
    agent.answer(number, models[2].address.encode())
    assert (await asyncio.wait_for(call, 5)).body == b"1"
    assert link(gateway).loaded == 2
    await loaded(gateway, agent, "b", models[1])


async def test_models_with_work_are_not_unloaded(gateway: Gateway, agent: Agent, models: list[Model]) -> None:
    await loaded(gateway, agent, "a", models[0])
    models[0].echo = False
    busy = ask(gateway, "a")
    await models[0].next()
    await models[0].next()
    call = ask(gateway, "b")
    number, _, _ = await agent.order()
    agent.answer(number, b"no memory", status=507)
    with pytest.raises(AwsError, match="cannot be loaded now: no memory") as caught:
        await asyncio.wait_for(call, 5)
    assert caught.value.status == 503
    models[0].answer(2, b"late")
    assert (await asyncio.wait_for(busy, 5)).body == b"late"


async def test_what_cannot_be_loaded(gateway: Gateway, agent: Agent) -> None:
    for status, words, code in (
        (404, "Failed to download", "ValidationError"),
        (500, "exit code 3", "ModelError"),
    ):
        call = ask(gateway, "x")
        number, _, _ = await agent.order()
        agent.answer(number, words.encode(), status=status)
        with pytest.raises(AwsError, match=words) as caught:
            await asyncio.wait_for(call, 5)
        assert caught.value.code == code
    with pytest.raises(AwsError, match="TargetModel must name one"):
        await ask(gateway, "")


async def test_a_model_that_loads_for_long_is_not_ready(
    gateway: Gateway, agent: Agent, models: list[Model]
) -> None:
    call = ask(gateway, "slow")
    number, _, _ = await agent.order()
    with pytest.raises(AwsError, match="still being loaded") as caught:
        await asyncio.wait_for(call, 5)
    assert (caught.value.code, caught.value.status) == ("ModelNotReadyException", 429)
    number, path, name = await agent.order()
    assert (path, name) == ("/models/load", "slow"), "the gateway goes on asking"
    agent.answer(number, models[0].address.encode())
    assert (await asyncio.wait_for(ask(gateway, "slow"), 5)).body == b"1"


async def test_draining_ends_all_connections(gateway: Gateway, agent: Agent, models: list[Model]) -> None:
    await loaded(gateway, agent, "a", models[0])
    await asyncio.wait_for(gateway.drain("i-1"), 5)
    async with asyncio.timeout(5):
        while gateway._links:
            await asyncio.sleep(0.01)


async def test_an_instance_that_is_lost(gateway: Gateway, agent: Agent, models: list[Model]) -> None:
    call = ask(gateway, "a")
    await agent.order()
    await agent.stop()
    with pytest.raises(AwsError, match=r"cannot be loaded now|No instance"):
        await asyncio.wait_for(call, 5)


async def test_where_nothing_is_kept_a_model_leaves_with_its_last_answer(
    gateway: Gateway, agent: Agent, models: list[Model], sink: Sink
) -> None:
    gateway.add_instance(REGION, NAME, "v", "i-1", f"models|{agent.address}|uncached")
    await until_connected(gateway)
    models[0].echo = False
    calls = [ask(gateway, "a") for _ in range(2)]
    number, path, name = await agent.order()
    agent.answer(number, models[0].address.encode() + b" 2000")
    for _ in calls:
        at, body = await models[0].next()
        models[0].answer(at, body)
    await asyncio.wait_for(asyncio.gather(*calls), 5)
    number, path, name = await agent.order()
    assert (path, name) == ("/models/unload", "a")
    again = ask(gateway, "a")
    number_again, path, _ = await agent.order()
    assert path == "/models/load"
    agent.answer(number, b"")
    agent.answer(number_again, models[0].address.encode())
    at, body = await models[0].next()
    models[0].answer(at, body)
    await asyncio.wait_for(again, 5)
    assert (await agent.order())[1] == "/models/unload"
    gateway.flush()
    await asyncio.sleep(0.1)
    assert sorted(sink.named("ModelDownloadingTime").values) == [0.0, 2000.0]
    assert sum(sink.named("ModelUnloadingTime").counts) >= 1
