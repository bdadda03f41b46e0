"""InvokeEndpoint on the ordinary way, for requests that the fast route does not get (such as streamed bodies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.hosting.async_inference import AsyncInference
from sagesmith.hosting.gateway import Gateway, request_head
from sagesmith.services.sagemaker_runtime._limits import (
    MAX_BODY,
    REFUSED,
    body_too_large,
    is_asynchronous,
    refuse,
    special,
)

__all__ = ["Runtime"]


class Runtime:
    """Handlers of the service ``sagemaker-runtime``; authorization was checked before they are called."""

    service = "sagemaker-runtime"

    def __init__(self, gateway: Gateway, asynchronous: AsyncInference) -> None:
        self._gateway = gateway
        self._asynchronous = asynchronous

    @operation("InvokeEndpointAsync")
    async def invoke_endpoint_async(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Accept a request whose answer will be in S3."""
        accepted = await self._asynchronous.accept(call.region, request["EndpointName"], request)
        failure = {"FailureLocation": accepted.failure} if accepted.failure else {}
        return {"InferenceId": accepted.inference_id, "OutputLocation": accepted.output, **failure}

    @operation("InvokeEndpointWithResponseStream")
    async def invoke_endpoint_with_response_stream(
        self, call: Call, request: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Invoke the endpoint, wait for the whole answer and return it as a stream of one part."""
        answer = await self.invoke_endpoint(call, request)
        return {**answer, "Body": iter([{"PayloadPart": {"Bytes": answer["Body"]}}])}

    @operation("InvokeEndpoint")
    async def invoke_endpoint(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Invoke the endpoint and wait for its answer."""
        for member in REFUSED:
            if member in request:
                raise refuse(member)
        if self._gateway.endpoint(call.region, request["EndpointName"]).asynchronous:
            raise is_asynchronous(request["EndpointName"])
        body = request.get("Body", b"")
        if len(body) > MAX_BODY:
            raise body_too_large(len(body))
        fields, needs = special(lambda member, _: request.get(member))
        head = request_head(
            request.get("ContentType", "application/octet-stream").encode(),
            request.get("Accept", "").encode(),
            request.get("CustomAttributes", "").encode(),
            fields=fields,
        )
        answer = await self._gateway.call(
            call.region,
            request["EndpointName"],
            head,
            body,
            request.get("TargetVariant", ""),
            needs=needs,
            component=request.get("InferenceComponentName", ""),
        )
        headers = dict(
            line.decode("latin-1").split(": ", 1) for line in answer.headers.split(b"\r\n") if line
        )
        result = {
            "Body": answer.body,
            "ContentType": headers["Content-Type"],
            "InvokedProductionVariant": headers["x-Amzn-Invoked-Production-Variant"],
        }
        if "X-Amzn-SageMaker-Custom-Attributes" in headers:
            result["CustomAttributes"] = headers["X-Amzn-SageMaker-Custom-Attributes"]
        return result
