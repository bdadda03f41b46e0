"""What of endpoints can be scaled: instances, the provisioned concurrency of serverless variants, inference components' copies."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Final

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import validation_error
from sagesmith.lifecycle import component
from sagesmith.lifecycle.endpoint import CapacityRequested, Status, Variant, step
from sagesmith.lifecycle.records import (
    component_document,
    component_run,
    component_status,
    endpoint_document,
    endpoint_run,
)
from sagesmith.store.resources import Change, Missing, Resource, Resources

__all__ = ["ComponentCapacity", "ProvisionedConcurrency", "VariantCapacity"]

_RESOURCE: Final = re.compile(r"endpoint/([^/]+)/variant/([^/]+)")


class _OfVariant(ABC):
    """Reads and changes a number of ``endpoint/{EndpointName}/variant/{VariantName}``. Thread-safe.

    Args:
        notify: tells the driver of endpoints to look at one.
    """

    @abstractmethod
    def _count(self, variant: Variant) -> int | None:
        """Return the desired number, None if the variant is not of the kind that has one."""

    @abstractmethod
    def _request(self, variant: Variant, count: int) -> CapacityRequested:
        """Return what sets the number to *count*, or raise `ValidationException` if that cannot be."""

    def __init__(
        self, resources: Resources, notify: Callable[[str], None], clock: Clock = system_clock
    ) -> None:
        self._resources = resources
        self._notify = notify
        self._clock = clock

    def read(self, region: str, resource_id: str) -> tuple[int, bool] | None:
        """Return the desired number, and whether they all came up; None if there is no such variant.

        One that crashed later does not count: it is being replaced, and others may be needed all the more.
        """
        endpoint, variant = _parts(resource_id)
        resource = self._resources.get("endpoint", region, endpoint)
        found = _variant(resource, variant)
        count = self._count(found) if found is not None else None
        if resource is None or count is None:
            return None
        return count, resource.status == Status.IN_SERVICE

    def change(self, region: str, resource_id: str, count: int) -> None:
        """Ask for *count*.

        Raises:
            AwsError: `ValidationException`, there is no such variant, the endpoint is not in service, or the number is
                too large.
        """
        endpoint, name = _parts(resource_id)

        def edit(resource: Resource) -> Change:
            run = endpoint_run(resource.document)
            variant = _variant(resource, name)
            if run.status is not Status.IN_SERVICE or variant is None or self._count(variant) is None:
                raise validation_error(
                    f"{resource_id} cannot be scaled: its endpoint is in status {run.status.value}."
                )
            after, _ = step(run, self._request(variant, count), self._clock())
            return Change(after.status.value, endpoint_document(resource.document, after))

        try:
            changed = self._resources.update("endpoint", region, endpoint, edit, f"{name} scaled to {count}")
        except Missing:
            raise validation_error(f"Could not find the endpoint of {resource_id}.") from None
        self._notify(changed.arn)


class VariantCapacity(_OfVariant):
    """The number of a variant's instances."""

    def limits(self, region: str, resource_id: str) -> tuple[int, float]:
        """Return how few and how many there may be: none of an asynchronous endpoint, whose requests wait for one."""
        resource = self._resources.get("endpoint", region, _parts(resource_id)[0])
        return (0 if resource is not None and resource.document.get("AsyncInferenceConfig") else 1), inf

    def _count(self, variant: Variant) -> int | None:
        return variant.count if variant.serverless is None else None

    def _request(self, variant: Variant, count: int) -> CapacityRequested:
        return CapacityRequested({variant.name: (None, count)})


class ProvisionedConcurrency(_OfVariant):
    """The number of a serverless variant's containers that are always there."""

    def limits(self, region: str, resource_id: str) -> tuple[int, float]:
        """Return how few and how many there may be: none, and the variant's maximum concurrency."""
        endpoint, name = _parts(resource_id)
        variant = _variant(self._resources.get("endpoint", region, endpoint), name)
        serverless = variant.serverless if variant is not None else None
        return 0, serverless.max_concurrency if serverless is not None else inf

    def _count(self, variant: Variant) -> int | None:
        return variant.serverless.provisioned if variant.serverless is not None else None

    def _request(self, variant: Variant, count: int) -> CapacityRequested:
        most = variant.serverless.max_concurrency if variant.serverless is not None else 0
        if count > most:
            raise validation_error(
                f"ProvisionedConcurrency ({count}) must be less than or equal to MaxConcurrency ({most})."
            )
        return CapacityRequested({}, concurrency={variant.name: (None, count)})


class ComponentCapacity:
    """Reads and changes how many copies ``inference-component/{InferenceComponentName}`` has. Thread-safe.

    Args:
        notify: tells the driver of inference components to look at one.
    """

    def __init__(
        self, resources: Resources, notify: Callable[[str], None], clock: Clock = system_clock
    ) -> None:
        self._resources = resources
        self._notify = notify
        self._clock = clock

    def read(self, region: str, resource_id: str) -> tuple[int, bool] | None:
        """Return the desired number of copies, and whether they all came up or never will; None if there is no such
        component."""
        resource = self._resources.get(_COMPONENT, region, _name(resource_id))
        if resource is None:
            return None
        run = component_run(resource.document)
        if run.current is None:
            return None
        return run.current.variants[0].count, run.status is Status.IN_SERVICE

    def limits(self, region: str, resource_id: str) -> tuple[int, float]:
        """Return how few and how many copies there may be."""
        return 0, inf

    def change(self, region: str, resource_id: str, count: int) -> None:
        """Ask for *count* copies.

        Raises:
            AwsError: `ValidationException`, there is no such component, or it is not in service.
        """

        def edit(resource: Resource) -> Change:
            run = component_run(resource.document)
            if run.status is not Status.IN_SERVICE or run.current is None:
                raise validation_error(
                    f"{resource_id} cannot be scaled: it is in status {component_status(run)}."
                )
            wanted = {variant.name: (None, count) for variant in run.current.variants}
            after = component.step(run, CapacityRequested(wanted), self._clock())
            return Change(component_status(after), component_document(resource.document, after))

        why = f"scaled to {count} copies"
        try:
            changed = self._resources.update(_COMPONENT, region, _name(resource_id), edit, why)
        except Missing:
            raise validation_error(f"Could not find {resource_id}.") from None
        self._notify(changed.arn)


_COMPONENT: Final = "inference-component"


def _name(resource_id: str) -> str:
    return resource_id.removeprefix(f"{_COMPONENT}/")


def _parts(resource_id: str) -> tuple[str, str]:
    match = _RESOURCE.fullmatch(resource_id)
    return (match[1], match[2]) if match else ("", "")


def _variant(resource: Resource | None, name: str) -> Variant | None:
    if resource is None:
        return None
    current = endpoint_run(resource.document).current
    variants = current.variants if current is not None else ()
    return next((v for v in variants if v.name == name), None)
