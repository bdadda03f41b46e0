"""InvokeEndpoint from an HTTP exchange to a model server and back, with a stand-in for the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sagesmith.aws.call import Call, Caller, marked_operations
from sagesmith.errors import AwsError, access_denied
from sagesmith.hosting.gateway import Gateway
from sagesmith.services.sagemaker_runtime import InvokeRoute, Runtime
from sagesmith.services.sagemaker_runtime._limits import REFUSED
from sagesmith_toolkit.server import ModelServer, Request, Response

ALICE = Caller("123456789012", "arn:aws:iam::123456789012:user/alice", "AIDA", "AKIA")
MALLORY = Caller("123456789012", "arn:aws:iam::123456789012:user/mallory", "AIDB", "AKIB")


class Echo:
    """Answers with what it was asked, in all its parts."""

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        return [
            Response(
                200, r.accept or "text/plain", b"|".join((r.content_type.encode(), r.body)), r.attributes
            )
            for r in requests
        ]


class FakeExchange:
    """One request, as the HTTP server hands it to a fast route."""

    def __init__(self, target: str, headers: dict[bytes, bytes], body: bytes, caller: Caller) -> None:
        self.target = target.encode()
        self.headers = headers
        self.body = body
        self.caller = caller
        self.region = "us-east-1"
        self.answer: asyncio.Future[tuple[int, bytes, bytes]] = asyncio.get_running_loop().create_future()

    def reply(self, status: int, header_block: bytes, body: bytes) -> None:
        self.answer.set_result((status, header_block, body))

    def call(self, service: str, operation: str, time: float) -> Call:
        return Call(service, operation, self.region, self.caller.account, self.caller, "request-1", time)

    def fail(self, error: AwsError) -> None:
        self.answer.set_exception(error)


class Runner:
    def __init__(self, route: InvokeRoute) -> None:
        self.route = route

    async def __call__(
        self,
        body: bytes = b"1,2",
        *,
        name: str = "churn",
        caller: Caller = ALICE,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, bytes, bytes]:
        wire = {key.encode(): value.encode() for key, value in headers.items()}
        exchange = FakeExchange(f"/endpoints/{name}/invocations", wire, body, caller)
        assert self.route.matches(b"POST", exchange.target)
        self.route.handle(exchange)
        return await asyncio.wait_for(exchange.answer, 5)


def authorize(caller: Caller, action: str, resource: str, request: Any) -> None:
    assert action == "sagemaker:InvokeEndpoint"
    assert resource.startswith("arn:aws:sagemaker:us-east-1:123456789012:endpoint/")
    if caller is MALLORY:
        raise access_denied(f"{caller.arn} is not authorized to perform: {action} on resource: {resource}")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    server = ModelServer(Echo())
    await server.listen(str(tmp_path / "m.sock"))
    gateway = Gateway("123456789012", sink=lambda namespace, data, *, region: None)
    gateway.set_endpoint("us-east-1", "churn", {"AllTraffic": 1.0})
    gateway.add_instance("us-east-1", "churn", "AllTraffic", "i-1", f"unix:{tmp_path}/m.sock")
    yield gateway
    await gateway.close()
    server.drain()
    await server.wait_closed()


@pytest.fixture
def invoke(gateway: Gateway) -> Runner:
    return Runner(InvokeRoute(gateway, authorize))


async def test_headers_and_body_pass_both_ways(invoke: Runner) -> None:
    status, headers, body = await invoke(
        headers={
            "content-type": "text/csv",
            "accept": "application/json",
            "x-amzn-sagemaker-custom-attributes": "trace=7",
        }
    )
    assert status == 200
    assert body == b"text/csv|1,2"
    assert headers.split(b"\r\n") == [
        b"Content-Type: application/json",
        b"x-Amzn-Invoked-Production-Variant: AllTraffic",
        b"X-Amzn-SageMaker-Custom-Attributes: trace=7",
        b"",
    ]


async def test_a_request_without_content_type_is_octets(invoke: Runner) -> None:
    assert (await invoke(b"\x00\xff"))[2] == b"application/octet-stream|\x00\xff"


async def test_an_inference_id_is_accepted(invoke: Runner) -> None:
    assert (await invoke(headers={"x-amzn-sagemaker-inference-id": "abc"}))[0] == 200


@pytest.mark.parametrize("member", REFUSED)
async def test_a_feature_that_is_not_there_is_refused_by_name(invoke: Runner, member: str) -> None:
    with pytest.raises(AwsError, match=f"{member} is not supported") as caught:
        await invoke(headers={REFUSED[member]: "x"})
    assert caught.value.code == "ValidationError"


async def test_a_body_over_6_mb_is_refused(invoke: Runner) -> None:
    assert (await invoke(b"x" * 6291456))[0] == 200
    with pytest.raises(AwsError, match="less than or equal to 6291456") as caught:
        await invoke(b"x" * 6291457)
    assert (caught.value.code, caught.value.status) == ("ValidationError", 413)


async def test_who_may_not_invoke_does_not_learn_what_exists(invoke: Runner) -> None:
    for name in ("churn", "nothing"):
        with pytest.raises(AwsError, match="not authorized") as caught:
            await invoke(name=name, caller=MALLORY)
        assert caught.value.status == 403


async def test_a_component_is_invoked_by_who_may_on_both(gateway: Gateway, tmp_path: Path) -> None:
    asked: list[str] = []

    def watch(caller: Caller, action: str, resource: str, request: Any) -> None:
        asked.append(resource.rpartition(":")[2])
        if resource.endswith("/secret"):
            raise access_denied(f"not authorized to perform: {action} on resource: {resource}")

    gateway.set_endpoint("us-east-1", "shelf", {})
    for name in ("open", "secret"):
        key = f"inference-component/{name}"
        gateway.set_endpoint("us-east-1", key, {"all": 1.0}, component_of="shelf")
        gateway.add_instance("us-east-1", key, "all", f"c-{name}", f"unix:{tmp_path}/m.sock")
    invoke = Runner(InvokeRoute(gateway, watch))

    def named(name: str) -> dict[str, str]:
        return {"x-amzn-sagemaker-inference-component": name}

    assert (await invoke(name="shelf", headers=named("open")))[0] == 200
    assert asked == ["endpoint/shelf", "inference-component/open"]
    with pytest.raises(AwsError, match="inference-component/secret"):
        await invoke(name="shelf", headers=named("secret"))
    with pytest.raises(AwsError, match="Inference Component Name header is required"):
        await invoke(name="shelf")
    with pytest.raises(AwsError, match="Inference component none of endpoint shelf"):
        await invoke(name="shelf", headers=named("none"))
    with pytest.raises(AwsError, match="leave InferenceComponentName out"):
        await invoke(name="churn", headers=named("open"))
    with pytest.raises(AwsError, match="Endpoint nothing of account"):
        await invoke(name="nothing", headers=named("open"))


@pytest.mark.parametrize("name", ["-churn", "a" * 64, "%2e%2e", "a%20b", "%ff", "churn%0A"])
async def test_a_name_that_none_can_have(invoke: Runner, name: str) -> None:
    with pytest.raises(AwsError, match="at 'endpointName' failed to satisfy constraint") as caught:
        await invoke(name=name)
    assert caught.value.code == "ValidationError"


async def test_an_endpoint_that_is_not_there(invoke: Runner) -> None:
    with pytest.raises(AwsError, match="Endpoint other of account 123456789012 not found"):
        await invoke(name="other")


async def test_a_header_that_no_model_gets(invoke: Runner) -> None:
    with pytest.raises(AwsError, match="'contentType' failed"):
        await invoke(headers={"content-type": "x" * 1025})


def test_the_route_takes_invocations_and_nothing_else(gateway: Gateway) -> None:
    route = InvokeRoute(gateway, authorize)
    assert route.matches(b"POST", b"/endpoints/churn/invocations")
    for method, target in (
        (b"GET", b"/endpoints/churn/invocations"),
        (b"POST", b"/endpoints/churn/async-invocations"),
        (b"POST", b"/endpoints/churn/invocations-response-stream"),
        (b"POST", b"/endpoints/a/b/invocations"),
        (b"POST", b"/"),
    ):
        assert not route.matches(method, target)


def a_call() -> Call:
    return Call("sagemaker-runtime", "InvokeEndpoint", "us-east-1", "123456789012", ALICE, "r-1", 0.0)


async def test_the_ordinary_way_gives_the_same(gateway: Gateway) -> None:
    nothing: Any = None
    runtime = Runtime(gateway, nothing)
    request: dict[str, Any] = {
        "EndpointName": "churn",
        "Body": b"5",
        "ContentType": "text/csv",
        "Accept": "a/b",
    }
    assert await runtime.invoke_endpoint(a_call(), {**request, "CustomAttributes": "t"}) == {
        "Body": b"text/csv|5",
        "ContentType": "a/b",
        "InvokedProductionVariant": "AllTraffic",
        "CustomAttributes": "t",
    }
    with pytest.raises(AwsError, match="SessionId is not supported"):
        await runtime.invoke_endpoint(a_call(), {**request, "SessionId": "NEW_SESSION"})
    with pytest.raises(AwsError, match="less than or equal to 6291456"):
        await runtime.invoke_endpoint(a_call(), {**request, "Body": b"x" * 6291457})
    operations = {mark.name for mark, _ in marked_operations(runtime)}
    assert operations == {"InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream"}
    answer = await runtime.invoke_endpoint_with_response_stream(a_call(), request)
    assert list(answer["Body"]) == [{"PayloadPart": {"Bytes": b"text/csv|5"}}]
