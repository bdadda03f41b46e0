"""Why an invocation failed, in the runtime's own words and codes (they differ from SageMaker's)."""

from __future__ import annotations

from sagesmith.arns import Arn
from sagesmith.errors import AwsError

__all__ = [
    "busy",
    "component_not_found",
    "container_not_found",
    "endpoint_not_found",
    "endpoint_not_in_service",
    "model_error",
    "model_not_found",
    "model_not_ready",
    "no_component",
    "no_container",
    "no_copies",
    "no_instance",
    "no_room",
    "no_such_feature",
    "no_target_model",
    "server_ends",
    "serverless_body_too_large",
    "stream_too_long",
    "throttled",
    "variant_not_found",
]

LOST = "The connection to the container was lost before it answered."
TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics "
    "for each container in Amazon CloudWatch, resolve the issue, and try again."
)
_LONGEST_MESSAGE = 4096


def endpoint_not_found(name: str, account: str) -> AwsError:
    """Return AWS's answer to an invocation of an endpoint that does not exist."""
    return AwsError("ValidationError", f"Endpoint {name} of account {account} not found.")


def endpoint_not_in_service(name: str, account: str, status: str) -> AwsError:
    """Return the answer to an invocation of an endpoint that is still created, failed or being deleted."""
    return AwsError(
        "ValidationError",
        f"Endpoint {name} of account {account} is not InService: its status is {status}. "
        "Wait until DescribeEndpoint says InService.",
    )


def variant_not_found(name: str, variant: str, variants: list[str]) -> AwsError:
    """Return the answer to a `TargetVariant` that the endpoint does not have."""
    return AwsError(
        "ValidationError",
        f"Production variant {variant} does not exist at endpoint {name}, which has {', '.join(variants)}.",
    )


def no_instance(name: str, variant: str) -> AwsError:
    """Return the answer while no instance of the variant can be reached: they start, or start again."""
    return AwsError(
        "ServiceUnavailable",
        f"No instance of production variant {variant} of endpoint {name} can be reached at the moment. Try again.",
        status=503,
    )


def no_component() -> AwsError:
    """Return AWS's answer to a request that names no inference component, to an endpoint that serves by them alone."""
    return AwsError(
        "ValidationError",
        "Inference Component Name header is required for endpoints to which you plan to deploy inference components. "
        "Please include Inference Component Name header or consider using SageMaker models.",
    )


def no_copies() -> AwsError:
    """Return AWS's answer to a request to an inference component without copies."""
    return AwsError(
        "ValidationError",
        "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
        "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API.",
    )


def component_not_found(component: str, name: str, account: str, *, has_models: bool) -> AwsError:
    """Return the answer to a request that names a component which the endpoint *name* does not serve."""
    more = " The endpoint serves models of its own: leave InferenceComponentName out." if has_models else ""
    return AwsError(
        "ValidationError",
        f"Inference component {component} of endpoint {name} of account {account} not found.{more}",
    )


def container_not_found(name: str, container: str, containers: list[str]) -> AwsError:
    """Return the answer to a `TargetContainerHostname` that is missing, or that the model does not have."""
    given = f"{container} is none of its containers" if container else "TargetContainerHostname must name one"
    return AwsError(
        "ValidationError", f"Endpoint {name} has the containers {', '.join(containers)}; {given}."
    )


def no_such_feature(name: str, variant: str, member: str) -> AwsError:
    """Return the answer to a request with *member* to a variant whose model is not made for that."""
    return AwsError(
        "ValidationError",
        f"{member} cannot be used with production variant {variant} of endpoint {name}: its model is not made for it. "
        f"Leave {member} out.",
    )


def no_target_model(name: str) -> AwsError:
    """Return the answer to a request that names none of a multi-model endpoint's models."""
    return AwsError(
        "ValidationError", f"Endpoint {name} serves many models: TargetModel must name one of its artifacts."
    )


def model_not_found(message: str) -> AwsError:
    """Return the answer to a `TargetModel` that is not there."""
    return AwsError("ValidationError", message)


def model_not_ready(model: str) -> AwsError:
    """Return the answer to a request whose model is still being loaded."""
    return AwsError(
        "ModelNotReadyException",
        f"The model {model} is still being loaded. Try again in a moment.",
        status=429,
    )


def no_room(model: str, message: str) -> AwsError:
    """Return the answer to a request whose model cannot be loaded beside those that have work."""
    return AwsError(
        "ServiceUnavailable",
        f"The model {model} cannot be loaded now: {message}. Try again, or give the variant larger or more instances.",
        status=503,
    )


def stream_too_long() -> AwsError:
    """Return why an answer in parts breaks off that was not complete in time."""
    return AwsError(
        "ModelStreamError", "The model did not finish its response within the time a stream may take."
    )


def server_ends() -> AwsError:
    """Return the answer to what arrives while the server ends."""
    return AwsError("ServiceUnavailable", "The server is shutting down. Try again when it is up.", status=503)


def server_starts() -> AwsError:
    """Return the answer to an invocation of what the server, which has just started, does not know yet."""
    return AwsError(
        "ServiceUnavailable",
        "The server has just started and is still taking up its endpoints. Try again in a moment.",
        status=503,
    )


def busy(name: str, variant: str, load: int) -> AwsError:
    """Return the answer when the instance of the variant that would be next has *load* requests in flight already."""
    return AwsError(
        "ThrottlingException",
        f"Each instance of production variant {variant} of endpoint {name} has {load} requests in flight, as many as "
        "it can answer in time. Slow down, or give the variant more instances.",
        status=429,
    )


def throttled(name: str, most: int) -> AwsError:
    """Return the answer when a serverless endpoint has as many requests as it may have at a time."""
    return AwsError(
        "ThrottlingException",
        f"Rate exceeded: serverless endpoint {name} has {most} concurrent invocations, which is its MaxConcurrency. "
        "Try again, or raise MaxConcurrency.",
        status=429,
    )


def no_container(name: str, waited_s: float) -> AwsError:
    """Return the answer to a request that waited too long for a container of a serverless endpoint."""
    return AwsError(
        "ServiceUnavailable",
        f"No container of serverless endpoint {name} was free or could start in {waited_s:g} s. Try again; "
        "`sagesmith status` shows whether the machine has room.",
        status=503,
    )


def serverless_body_too_large(size: int, limit: int) -> AwsError:
    """Return the answer to a body of *size* bytes, which is more than a serverless endpoint takes."""
    return AwsError(
        "ValidationError",
        "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length "
        f"less than or equal to {limit}, which is the limit of serverless endpoints. It has {size}.",
        status=413,
    )


def model_error(
    endpoint_arn: str, variant: str, instance_id: str, status: int, message: str, console_url: str = ""
) -> AwsError:
    """Return `ModelError` (424) around what the model answered: *status* (0 if nothing) and *message*."""
    arn = Arn.parse(endpoint_arn)
    group = (
        f"/aws/sagemaker/{'Endpoints' if ':endpoint/' in endpoint_arn else 'InferenceComponents'}/{arn.name}"
    )
    side = "client" if 400 <= status < 500 else "server"
    logs = f"{console_url}#logs:{group}" if console_url else f"log group {group}"
    message = message[:_LONGEST_MESSAGE]
    stream = Arn(
        "logs",
        arn.region,
        arn.account,
        f"log-group:{group}:log-stream:{variant}/{instance_id}",
        arn.partition,
    )
    return AwsError(
        "ModelError",
        f'Received {side} error ({status}) from primary with message "{message}". '
        f"See {logs} in account {arn.account} for more information.",
        status=424,
        members={"OriginalStatusCode": status, "OriginalMessage": message, "LogStreamArn": str(stream)},
    )
