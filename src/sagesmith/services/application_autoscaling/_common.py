"""What the operations share: the target that a request names, pages, and faults in the service's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sagesmith.aws.call import Call
from sagesmith.errors import AwsError
from sagesmith.store.queries import decode_token, encode_token, fingerprint
from sagesmith.store.resources import Resource
from sagesmith.store.scaling import NOTES, Scaling, Target

__all__ = ["SERVED", "check_limits", "invalid", "listed", "not_found", "registered", "shown", "target_of"]

SERVED: Final[Mapping[str, tuple[str, ...]]] = {
    "sagemaker:variant:DesiredInstanceCount": ("endpoint", "my-endpoint", "variant", "my-variant"),
    "sagemaker:variant:DesiredProvisionedConcurrency": ("endpoint", "my-endpoint", "variant", "my-variant"),
    "sagemaker:inference-component:DesiredCopyCount": ("inference-component", "my-component"),
}
"""The dimensions of the service namespace ``sagemaker`` that can be scaled, and what their resource IDs look like."""

_PAGE: Final = 50


def invalid(message: str) -> AwsError:
    """Return the fault of a request that makes no sense."""
    return AwsError("ValidationException", message)


def not_found(message: str) -> AwsError:
    """Return the fault of naming what is not there."""
    return AwsError("ObjectNotFoundException", message)


def target_of(call: Call, request: Mapping[str, Any]) -> Target:
    """Return the target that *request* names.

    Raises:
        AwsError: `ValidationException`, it is nothing that can be scaled here.
    """
    target = Target.of(call.region, request)
    form = SERVED.get(target.dimension)
    if target.namespace != "sagemaker" or form is None:
        raise invalid(
            f"Sagesmith scales the scalable dimensions {', '.join(SERVED)} of the service namespace sagemaker only, "
            f"not {target.dimension} of {target.namespace}."
        )
    parts = target.resource_id.split("/")
    if len(parts) != len(form) or not all(parts) or parts[::2] != list(form[::2]):
        raise invalid(
            f"Unsupported service namespace, resource type or scalable dimension: the resource ID {target.resource_id!r} "
            f"must look like {'/'.join(form)}."
        )
    return target


def check_limits(asked: Mapping[str, Any], allowed: tuple[int, float]) -> None:
    """Check the `MinCapacity` and `MaxCapacity` of *asked*, either of which may be missing.

    Raises:
        AwsError: `ValidationException`, one is above the other, or beyond what is *allowed*.
    """
    least, most = asked.get("MinCapacity"), asked.get("MaxCapacity")
    fewest, largest = allowed
    if least is not None and most is not None and least > most:
        raise invalid(f"Maximum capacity ({most}) cannot be less than minimum capacity ({least}).")
    if least is not None and least < fewest:
        raise invalid(
            f"MinCapacity must be at least {fewest}: a variant of a real-time endpoint keeps an instance."
        )
    for member, value in (("MinCapacity", least), ("MaxCapacity", most)):
        if (value or 0) > largest:
            raise invalid(
                f"{member} ({value}) must be at most {largest:g}, which is the serverless variant's MaxConcurrency."
            )


def registered(scaling: Scaling, target: Target) -> Resource:
    """Return the registered target.

    Raises:
        AwsError: `ObjectNotFoundException`, it is not registered.
    """
    found = scaling.target(target)
    if found is None:
        raise not_found(
            f"No scalable target registered for service namespace: {target.namespace}, resource ID: "
            f"{target.resource_id}, scalable dimension: {target.dimension}. Call RegisterScalableTarget first."
        )
    return found


def listed(
    call: Call, request: Mapping[str, Any], resources: Sequence[Resource], member: str
) -> dict[str, Any]:
    """Return the page of *resources* that *request* asks for, under the name *member*."""
    equal = {
        name: request[name]
        for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")
        if name in request
    }
    matching = [
        resource
        for resource in resources
        if all(resource.document.get(name) == value for name, value in equal.items())
    ]
    asked = fingerprint(member, call.region, equal)
    start = 0
    if request.get("NextToken"):
        try:
            (start,) = decode_token(request["NextToken"], asked, 1)
        except AwsError as error:
            raise AwsError("InvalidNextTokenException", error.message) from None
    room = request.get("MaxResults", _PAGE)
    answer: dict[str, Any] = {member: [shown(resource) for resource in matching[start : start + room]]}
    if start + room < len(matching):
        answer["NextToken"] = encode_token([start + room], asked)
    return answer


def shown(resource: Resource) -> dict[str, Any]:
    """Return the resource's document as clients see it."""
    return {name: value for name, value in resource.document.items() if name != NOTES}
