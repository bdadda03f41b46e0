"""The gateway against model servers whose answers the tests hold in their hands."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from time import monotonic

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting._gateway_link import Link
from sagesmith.hosting._gateway_metrics import Histogram
from sagesmith.hosting.gateway import RANDOM, Answer, Gateway, request_head
from sagesmith.store.metrics import Datum
from sagesmith_toolkit.frames import GOING, REQUEST, RESPONSE

REGION, NAME = "us-east-1", "churn"
HEAD = request_head(b"text/csv", b"", b"")


class Model:
    """A model server that answers when told to, or at once if `echo` is set."""

    def __init__(self, path: Path, *, echo: bool = True) -> None:
        self.path = path
        self.address = f"unix:{path}"
        self.echo = echo
        self.got: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.heads: list[bytes] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> Model:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                length, number, head_size = REQUEST.unpack(await reader.readexactly(REQUEST.size))
                frame = await reader.readexactly(length - 6)
                self.heads.append(frame[:head_size])
                body = frame[head_size:]
                self.got.put_nowait((number, body))
                if self.echo:
                    self.answer(number, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()

    def answer(self, number: int, body: bytes, *, status: int = 200, head: bytes = b"text/csv\0") -> None:
        frame = RESPONSE.pack(8 + len(head) + len(body), number, status, len(head)) + head + body
        self.writers[-1].write(frame)

    async def next(self) -> tuple[int, bytes]:
        return await asyncio.wait_for(self.got.get(), 5)


class Sink:
    def __init__(self) -> None:
        self.data: list[tuple[str, str, Datum]] = []

    def __call__(self, namespace: str, data: Iterable[Datum], *, region: str) -> None:
        self.data += [(region, namespace, datum) for datum in data]

    def named(self, name: str) -> Datum:
        (datum,) = [datum for _, _, datum in self.data if datum.name == name]
        return datum


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
async def gateway(sink: Sink) -> AsyncIterator[Gateway]:
    gateway = Gateway("123456789012", sink=sink, clock=lambda: 1000.0, timeout_s=0.4, max_in_flight=4)
    gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[list[Model]]:
    """Three model servers that are started; tests say which instances they are."""
    models = [await Model(tmp_path / f"{n}.sock").start() for n in range(3)]
    yield models
    for model in models:
        await model.stop()


def deploy(gateway: Gateway, *models: Model, variant: str = "AllTraffic") -> None:
    gateway.set_endpoint(REGION, NAME, {variant: 1.0})
    for number, model in enumerate(models):
        gateway.add_instance(REGION, NAME, variant, f"i-{number}", model.address)


async def invoke(gateway: Gateway, body: bytes = b"1,2", *, variant: str = "") -> Answer:
    return await asyncio.wait_for(gateway.call(REGION, NAME, HEAD, body, variant), 5)


async def refusal(gateway: Gateway, body: bytes = b"1,2", *, variant: str = "") -> AwsError:
    with pytest.raises(AwsError) as caught:
        await invoke(gateway, body, variant=variant)
    return caught.value


async def until_connected(gateway: Gateway) -> None:
    for _ in range(500):
        if gateway._links and all(link.usable for link in gateway._links):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not connected")


async def test_an_invocation_goes_there_and_back(gateway: Gateway, models: list[Model]) -> None:
    deploy(gateway, models[0])
    answer = await invoke(gateway, b"5,6")
    assert answer.body == b"5,6"
    assert answer.headers == b"Content-Type: text/csv\r\nx-Amzn-Invoked-Production-Variant: AllTraffic\r\n"


async def test_bodies_of_all_sizes_come_back_whole(gateway: Gateway, models: list[Model]) -> None:
    deploy(gateway, models[0])
    bodies = [b"", b"x", b"y" * 70_000, b"z" * (6 * 1024 * 1024)]
    answers = await asyncio.gather(*(invoke(gateway, body) for body in bodies))
    assert [answer.body == body for answer, body in zip(answers, bodies, strict=True)] == [True] * 4


async def test_answers_in_any_order_find_their_requests(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    calls = [asyncio.create_task(invoke(gateway, b"%d" % n)) for n in range(3)]
    got = [await models[0].next() for _ in range(3)]
    for number, body in reversed(got):
        models[0].answer(number, body + b"!")
    assert [(await call).body for call in calls] == [b"0!", b"1!", b"2!"]


async def test_an_unknown_endpoint(gateway: Gateway) -> None:
    error = await refusal(gateway)
    assert (error.code, error.status) == ("ValidationError", 400)
    assert error.message == "Endpoint churn of account 123456789012 not found."


async def test_an_endpoint_that_is_not_in_service(gateway: Gateway, models: list[Model]) -> None:
    gateway.set_endpoint(REGION, NAME, {"AllTraffic": 1.0}, status="Creating")
    assert "is not InService: its status is Creating" in (await refusal(gateway)).message
    gateway.set_endpoint(REGION, NAME, {"AllTraffic": 1.0}, status="Updating")
    gateway.add_instance(REGION, NAME, "AllTraffic", "i-1", models[0].address)
    assert (await invoke(gateway)).body == b"1,2"
    gateway.remove_endpoint(REGION, NAME)
    assert "not found" in (await refusal(gateway)).message


async def test_variants_get_exactly_their_share(gateway: Gateway, models: list[Model]) -> None:
    gateway.set_endpoint(REGION, NAME, {"a": 7.0, "b": 2.0, "c": 1.0, "off": 0.0})
    for variant, model in zip("abc", models, strict=True):
        gateway.add_instance(REGION, NAME, variant, variant, model.address)
    seen: Counter[bytes] = Counter()
    for _ in range(50):
        seen[(await invoke(gateway)).headers.split(b"Variant: ")[1].strip()] += 1
    assert seen == {b"a": 35, b"b": 10, b"c": 5}


async def test_a_target_variant_is_taken_at_its_word(gateway: Gateway, models: list[Model]) -> None:
    gateway.set_endpoint(REGION, NAME, {"a": 1.0, "shadowed": 0.0})
    gateway.add_instance(REGION, NAME, "a", "i-a", models[0].address)
    gateway.add_instance(REGION, NAME, "shadowed", "i-s", models[1].address)
    assert b"Variant: shadowed" in (await invoke(gateway, variant="shadowed")).headers
    error = await refusal(gateway, variant="nope")
    assert error.code == "ValidationError"
    assert "variant nope does not exist at endpoint churn, which has a, shadowed" in error.message


async def test_the_least_busy_instance_gets_the_request(gateway: Gateway, models: list[Model]) -> None:
    for model in models:
        model.echo = False
    deploy(gateway, *models)
    await until_connected(gateway)
    calls = [asyncio.create_task(invoke(gateway)) for _ in range(6)]
    got = [[await model.next(), await model.next()] for model in models]
    number, body = got[1][0]
    models[1].answer(number, body)
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    calls.append(asyncio.create_task(invoke(gateway)))
    got[1].append(await models[1].next())
    for model, requests in zip(models, got, strict=True):
        for number, body in requests:
            model.answer(number, body)
    await asyncio.gather(*calls)


async def test_a_models_error_keeps_its_status_and_words(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    call = asyncio.create_task(refusal(gateway))
    number, _ = await models[0].next()
    models[0].answer(number, b"30 columns expected, got 2", status=400, head=b"text/plain\0")
    error = await call
    assert (error.code, error.status) == ("ModelError", 424)
    assert error.message == (
        'Received client error (400) from primary with message "30 columns expected, got 2". '
        "See log group /aws/sagemaker/Endpoints/churn in account 123456789012 for more information."
    )
    assert error.members == {
        "OriginalStatusCode": 400,
        "OriginalMessage": "30 columns expected, got 2",
        "LogStreamArn": "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/churn"
        ":log-stream:AllTraffic/i-0",
    }


async def test_a_model_cannot_write_headers_of_its_own(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    call = asyncio.create_task(invoke(gateway))
    number, _ = await models[0].next()
    models[0].answer(number, b"", head=b"text/csv\r\nSet-Cookie: a=b\0x\r\n\r\nbody")
    assert (await call).headers.count(b"\r\n") == 3


async def test_a_model_that_takes_too_long(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    call = asyncio.create_task(refusal(gateway))
    number, _ = await models[0].next()
    error = await call
    assert (error.code, error.members["OriginalStatusCode"]) == ("ModelError", 0)
    assert "Your invocation timed out while waiting for a response" in error.message
    models[0].answer(number, b"too late")
    models[0].echo = True
    assert (await invoke(gateway, b"next")).body == b"next"


async def test_more_than_the_limit_is_refused_at_once(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    calls = [asyncio.create_task(invoke(gateway)) for _ in range(4)]
    got = [await models[0].next() for _ in calls]
    error = await refusal(gateway)
    assert (error.code, error.status) == ("ThrottlingException", 429)
    for number, body in got:
        models[0].answer(number, body)
    await asyncio.gather(*calls)


async def test_a_broken_connection_fails_what_was_written_and_is_made_again(
    gateway: Gateway, models: list[Model]
) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    call = asyncio.create_task(refusal(gateway))
    await models[0].next()
    await models[0].stop()
    error = await call
    assert error.code == "ModelError"
    assert "connection to the container was lost" in error.message
    assert (await refusal(gateway)).code == "ServiceUnavailable"
    models[0].echo = True
    models[0].path.unlink(missing_ok=True)
    await models[0].start()
    await until_connected(gateway)
    assert (await invoke(gateway)).body == b"1,2"
    assert models[0].got.qsize() == 1, "the failed request was not sent again"


async def test_what_was_not_written_goes_to_another_instance(gateway: Gateway, models: list[Model]) -> None:
    deploy(gateway, models[0], models[1])
    await until_connected(gateway)
    first, second = gateway._instances["i-0"], gateway._instances["i-1"]
    assert isinstance(first, Link)
    written, queued = Answer(HEAD, b"written", 0.0), Answer(HEAD, b"moved", 0.0)
    first.send(written)  # at once: the instance is idle
    first.send(queued)
    first.connection_lost(None)
    await asyncio.wait_for(queued.done, 5)
    assert queued.body == b"moved"
    assert models[1].got.qsize() == 1
    with pytest.raises(AwsError, match="connection"):
        await written.done
    assert second.usable


async def test_a_server_that_is_going_gets_nothing_new(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    call = asyncio.create_task(invoke(gateway, b"before"))
    number, body = await models[0].next()
    gateway.add_instance(REGION, NAME, "AllTraffic", "i-1", models[1].address)
    models[0].writers[-1].write(GOING)
    await until_connected_to(gateway, "i-1")
    for _ in range(4):
        await invoke(gateway)
    models[0].answer(number, body)
    assert (await call).body == b"before"
    assert (models[0].got.qsize(), models[1].got.qsize()) == (0, 4)


async def until_connected_to(gateway: Gateway, instance_id: str) -> None:
    for _ in range(500):
        if gateway._instances[instance_id].usable and not gateway._instances["i-0"].usable:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not connected")


async def test_requests_wait_for_an_instance_that_is_just_added(
    gateway: Gateway, models: list[Model]
) -> None:
    deploy(gateway, models[0])
    assert not gateway._instances["i-0"].usable
    assert (await invoke(gateway)).body == b"1,2"


async def test_an_instance_that_is_not_there(gateway: Gateway, tmp_path: Path) -> None:
    deploy(gateway, Model(tmp_path / "missing.sock"))
    error = await refusal(gateway)
    assert (error.code, error.status) == ("ServiceUnavailable", 503)


async def test_drain_waits_for_what_is_in_flight(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0], models[1])
    await until_connected(gateway)
    calls = [asyncio.create_task(invoke(gateway)) for _ in range(2)]
    number, body = await models[0].next()
    drained = asyncio.create_task(gateway.drain("i-0"))
    await asyncio.sleep(0.02)
    assert not drained.done()
    for _ in range(3):
        await invoke(gateway)
    assert models[0].got.empty()
    models[0].answer(number, body)
    await asyncio.wait_for(drained, 5)
    await asyncio.gather(*calls)
    await gateway.drain("i-0")


async def test_an_update_moves_traffic_without_losing_a_request(
    gateway: Gateway, models: list[Model]
) -> None:
    models[0].echo = False
    gateway.set_endpoint(REGION, NAME, {"old": 1.0})
    gateway.add_instance(REGION, NAME, "old", "i-0", models[0].address)
    call = asyncio.create_task(invoke(gateway, b"in flight"))
    number, body = await models[0].next()
    gateway.set_endpoint(REGION, NAME, {"new": 1.0})
    gateway.add_instance(REGION, NAME, "new", "i-1", models[1].address)
    assert b"Variant: new" in (await invoke(gateway)).headers
    models[0].answer(number, body)
    assert b"Variant: old" in (await call).headers


def test_an_address_must_be_of_a_known_form(gateway: Gateway) -> None:
    gateway.set_endpoint(REGION, NAME, {"a": 1.0})
    with pytest.raises(ValueError, match="is of no known form"):
        gateway.add_instance(REGION, NAME, "a", "i", "ftp://host")


async def test_metrics_say_what_happened(gateway: Gateway, models: list[Model], sink: Sink) -> None:
    models[0].echo = False
    deploy(gateway, models[0], models[1])
    await gateway.drain("i-1")
    calls = [asyncio.create_task(gateway.call(REGION, NAME, HEAD, b"")) for _ in range(4)]
    for status in (200, 200, 400, 503):
        number, _ = await models[0].next()
        models[0].answer(number, b"", status=status)
    await asyncio.gather(*calls, return_exceptions=True)
    await gateway.close()
    assert {(region, namespace) for region, namespace, _ in sink.data} == {(REGION, "AWS/SageMaker")}
    invocations = sink.named("Invocations")
    assert invocations.dimensions == {"EndpointName": NAME, "VariantName": "AllTraffic"}
    assert invocations.timestamp == 1000.0
    shape = {
        datum.name: dict(zip(datum.values, datum.counts, strict=True))
        for _, _, datum in sink.data
        if datum.unit == "None"
    }
    assert shape == {
        "Invocations": {1.0: 4},
        "InvocationsPerInstance": {1.0: 4},
        "Invocation4XXErrors": {0.0: 3, 1.0: 1},
        "Invocation5XXErrors": {0.0: 3, 1.0: 1},
        "InvocationModelErrors": {0.0: 2, 1.0: 2},
    }
    for name in ("ModelLatency", "OverheadLatency"):
        assert sink.named(name).unit == "Microseconds"
        assert sum(sink.named(name).counts) == 4


async def test_what_got_no_answer_has_no_latency(gateway: Gateway, models: list[Model], sink: Sink) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    await refusal(gateway)
    await gateway.close()
    assert sink.named("InvocationModelErrors").values == (1.0,)
    assert "ModelLatency" not in {datum.name for _, _, datum in sink.data}


async def test_a_sink_that_fails_stops_nothing(models: list[Model], caplog: pytest.LogCaptureFixture) -> None:
    def broken(namespace: str, data: Iterable[Datum], *, region: str) -> None:
        raise OSError("disk full")

    gateway = Gateway("123456789012", sink=broken)
    deploy(gateway, models[0])
    await invoke(gateway)
    gateway.flush()
    await asyncio.sleep(0.05)
    await invoke(gateway)
    await gateway.close()
    assert "metrics of endpoints could not be stored" in caplog.text


@pytest.mark.parametrize("number", [0, 1, 31, 32, 33, 100, 999, 12_345, 1_000_000, 59_999_999])
def test_a_histogram_is_within_its_resolution(number: int) -> None:
    histogram = Histogram()
    histogram.add(number)
    ((value, count),) = histogram.values()
    assert count == 1
    assert abs(value - number) <= 0.033 * number


def test_a_histogram_takes_anything() -> None:
    histogram = Histogram()
    for number in (-5, 2**40, 2**80):
        histogram.add(number)
    assert [count for _, count in histogram.values()] == [1, 2]


@pytest.mark.parametrize("head", [(b"a" * 1025, b"", b""), (b"", "é".encode(), b""), (b"", b"", b"a\0b")])
def test_headers_that_no_model_gets(head: tuple[bytes, bytes, bytes]) -> None:
    with pytest.raises(AwsError, match="failed to satisfy constraint"):
        request_head(*head)


async def test_a_model_too_slow_for_its_queue_gets_no_more(tmp_path: Path, sink: Sink) -> None:
    """What would not be answered in time is refused at once, instead of waiting for its turn to fail."""
    model = await Model(tmp_path / "slow.sock", echo=False).start()
    gateway = Gateway("123456789012", sink=sink, timeout_s=4.0)
    gateway.start()
    try:
        deploy(gateway, model)
        calls = [asyncio.create_task(invoke(gateway)) for _ in range(20)]
        await asyncio.sleep(1.8)
        began = monotonic()
        refused = await refusal(gateway)
        assert monotonic() - began < 0.5
        assert (refused.code, refused.status) == ("ThrottlingException", 429)
        assert "20 requests in flight" in refused.message
        for _ in calls:
            number, body = await model.next()
            model.answer(number, body)
        await asyncio.gather(*calls)
        await asyncio.sleep(0.6)
        again = asyncio.create_task(invoke(gateway))
        number, body = await model.next()
        model.answer(number, body)
        assert (await again).body == b"1,2"
    finally:
        await gateway.close()
        await model.stop()


async def test_while_the_server_ends_what_is_in_flight_is_answered(
    gateway: Gateway, models: list[Model]
) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    call = asyncio.create_task(invoke(gateway))
    number, body = await models[0].next()
    ending = asyncio.create_task(gateway.end(5))
    await asyncio.sleep(0.02)
    refused = await refusal(gateway)
    assert (refused.code, refused.status) == ("ServiceUnavailable", 503)
    assert not ending.done()
    models[0].answer(number, body)
    await ending
    assert (await call).body == b"1,2"


async def test_what_is_not_known_yet_is_to_be_tried_again(gateway: Gateway, models: list[Model]) -> None:
    """As after a restart: an endpoint that exists is never said not to."""
    gateway.starting = True
    refused = await refusal(gateway)
    assert (refused.code, refused.status) == ("ServiceUnavailable", 503)
    with pytest.raises(AwsError, match="still taking up its endpoints") as caught:
        gateway.component(gateway.endpoint(REGION, NAME), "a-component")
    assert caught.value.status == 503
    deploy(gateway, models[0])
    assert (await invoke(gateway)).body == b"1,2"
    gateway.starting = False
    gateway.remove_endpoint(REGION, NAME)
    assert (await refusal(gateway)).code == "ValidationError"


async def test_random_routing_reaches_every_instance(gateway: Gateway, models: list[Model]) -> None:
    gateway.set_endpoint(REGION, NAME, {"v": 1.0}, features={"v": [RANDOM]})
    for number, model in enumerate(models):
        gateway.add_instance(REGION, NAME, "v", f"i-{number}", model.address)
    await until_connected(gateway)
    for _ in range(60):
        await invoke(gateway)
    assert all(model.got.qsize() > 5 for model in models)


async def test_a_variant_that_is_there_twice_shares_its_part(gateway: Gateway, models: list[Model]) -> None:
    """As during an update: three quarters for the old instances, also of requests that name the variant."""
    gateway.set_endpoint(REGION, NAME, {"v": 0.75, "v\x001": 0.25})
    gateway.add_instance(REGION, NAME, "v", "i-old", models[0].address)
    gateway.add_instance(REGION, NAME, "v\x001", "i-new", models[1].address)
    await until_connected(gateway)
    for variant in ("", "v"):
        for _ in range(40):
            answer = await invoke(gateway, variant=variant)
            assert b"Production-Variant: v\r\n" in answer.headers
    assert (models[0].got.qsize(), models[1].got.qsize()) == (60, 20)
    gateway.set_endpoint(REGION, NAME, {"v\x001": 1.0})
    assert (await invoke(gateway, variant="v")).body == b"1,2"
    assert models[1].got.qsize() == 21


async def test_a_shadow_gets_copies(gateway: Gateway, models: list[Model], sink: Sink) -> None:
    """Half of the requests go to the shadow as well, whose answers and faults nobody sees."""
    gateway.set_endpoint(REGION, NAME, {"v": 1.0, "shadow": 0.0}, shadows={"shadow": 0.5})
    gateway.add_instance(REGION, NAME, "v", "i-v", models[0].address)
    for _ in range(4):
        await invoke(gateway)
    gateway.add_instance(REGION, NAME, "shadow", "i-s", models[1].address)
    await until_connected(gateway)
    for _ in range(20):
        assert (await invoke(gateway)).body == b"1,2"
    async with asyncio.timeout(5):
        while models[1].got.qsize() < 10:
            await asyncio.sleep(0.01)
    assert (models[0].got.qsize(), models[1].got.qsize()) == (24, 10)
    assert "does not exist" in (await refusal(gateway, variant="shadow")).message
    await models[1].stop()
    assert (await invoke(gateway)).body == b"1,2"
    gateway.flush()
    await asyncio.sleep(0.1)
    counted = {datum.dimensions["VariantName"] for _, _, datum in sink.data if datum.name == "Invocations"}
    assert counted == {"v", "shadow"}


async def test_requests_wait_a_moment_for_instances_that_come_back(tmp_path: Path, sink: Sink) -> None:
    """While all instances of a variant start again, requests wait a little; then they are refused."""
    gateway = Gateway("123456789012", sink=sink, timeout_s=20.0)
    gateway.start()
    model = await Model(tmp_path / "model.sock").start()
    try:
        gateway.set_endpoint(REGION, NAME, {"v": 1.0})
        waits = asyncio.create_task(invoke(gateway))
        await asyncio.sleep(0.05)
        assert not waits.done()
        gateway.add_instance(REGION, NAME, "v", "i-1", model.address)
        assert (await waits).body == b"1,2"
        gateway.remove_instance("i-1")
        began = monotonic()
        assert (await refusal(gateway)).status == 503
        assert monotonic() - began < 4
        waits = asyncio.create_task(invoke(gateway))
        await asyncio.sleep(0.01)
        gateway.remove_endpoint(REGION, NAME)
        with pytest.raises(AwsError, match="No instance"):
            await waits
    finally:
        await gateway.close()
        await model.stop()
