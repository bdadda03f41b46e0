"""Models that are slow, or never answer, on a server where an answer may take four seconds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.script_mode import SLEEPER, archive, sklearn_image
from tests.e2e.served import Served, wait_until
from tests.e2e.test_hosting import ROW, constant_model, deploy, variant

LIMIT_S = 4


@pytest.fixture(scope="module")
def flow() -> Iterator[Flow]:
    """Models: `sleeper` sleeps as long as it is told, `one` predicts 1."""
    served = Served(settings={"invocation_timeout_s": LIMIT_S})
    try:
        flow = Flow(served.up(), "slow")
        flow.upload({
            "sleeper.tar.gz": archive({"code/inference.py": SLEEPER}), "one.tar.gz": constant_model(1.0),
        })  # fmt: skip
        for name, image in (("sleeper", sklearn_image()), ("one", xgboost_image())):
            container = {"Image": image, "ModelDataUrl": f"s3://slow/{name}.tar.gz"}
            flow.sagemaker.create_model(
                ModelName=name, ExecutionRoleArn=served.role, PrimaryContainer=container
            )
        yield flow
    finally:
        served.remove()


def invoke(flow: Flow, endpoint: str, body: bytes, **more: Any) -> bytes:
    answer = flow.runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=body, **more)
    found: bytes = answer["Body"].read()
    return found


def test_a_serverless_container_that_never_answers_is_replaced(flow: Flow) -> None:
    """With one container at most, the next request has another at once."""
    config = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="one-at-most",
        ProductionVariants=[{"VariantName": "slow", "ModelName": "sleeper", "ServerlessConfig": config}],
    )
    flow.sagemaker.create_endpoint(EndpointName="one-at-most", EndpointConfigName="one-at-most")
    flow.wait_for_endpoint("one-at-most")
    with pytest.raises(ClientError, match="timed out while waiting"):
        invoke(flow, "one-at-most", b"1000")
    assert invoke(flow, "one-at-most", b"0") == b"awake"
    flow.sagemaker.delete_endpoint(EndpointName="one-at-most")


def serves_again(flow: Flow, endpoint: str) -> bool:
    try:
        return invoke(flow, endpoint, b"0", TargetVariant="slow") == b"awake"
    except ClientError:
        return False


def test_what_never_answers_is_given_up_and_holds_up_nobody_else(flow: Flow) -> None:
    """The other variant of its endpoint, and another endpoint, answer all they are asked meanwhile."""
    endpoint = deploy(flow, "both", variant("sleeper", name="slow"), variant("one", name="quick"))
    deploy(flow, "other", variant("one"))
    assert invoke(flow, endpoint, b"0", TargetVariant="slow") == b"awake"
    with ThreadPoolExecutor(4) as pool:
        hanging: list[Future[bytes]] = [
            pool.submit(invoke, flow, endpoint, b"1000", TargetVariant="slow") for _ in range(4)
        ]
        for _ in range(10):
            assert invoke(flow, endpoint, ROW, TargetVariant="quick") == b"1.0"
            assert invoke(flow, "other", ROW) == b"1.0"
        assert not any(each.done() for each in hanging), "all of that while they waited"
        errors = [each.exception(4 * LIMIT_S) for each in hanging]
    for error in errors:
        assert isinstance(error, ClientError)
        answer: Any = error.response
        assert answer["Error"]["Code"] == "ModelError"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert (answer["OriginalStatusCode"], "timed out while waiting" in answer["OriginalMessage"]) == (
            0,
            True,
        )
        assert ":log-group:/aws/sagemaker/Endpoints/both:log-stream:slow/i-" in answer["LogStreamArn"]
    # The process that hangs is replaced, and the variant serves again.
    wait_until(lambda: serves_again(flow, endpoint), timeout_s=60, what="the variant serves again")
    lines = flow.log_lines(f"/aws/sagemaker/Endpoints/{endpoint}", "slow/")
    assert any("The model did not answer in 4 s" in line for line in lines), lines
    for name in (endpoint, "other"):
        flow.sagemaker.delete_endpoint(EndpointName=name)
