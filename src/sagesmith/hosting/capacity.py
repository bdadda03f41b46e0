"""The number of instances of a production variant, and of copies of an inference component, as what can be scaled."""

from __future__ import annotations

import re
from collections.abc import Callable
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

__all__ = ["ComponentCapacity", "VariantCapacity"]

_RESOURCE: Final = re.compile(r"endpoint/([^/]+)/variant/([^/]+)")


class VariantCapacity:
    """Reads and changes how many instances ``endpoint/{EndpointName}/variant/{VariantName}`` has. Thread-safe.

    Args:
        notify: tells the driver of endpoints to look at one.
    """

    def __init__(
        self, resources: Resources, notify: Callable[[str], None], clock: Clock = system_clock
    ) -> None:
        self._resources = resources
        self._notify = notify
        self._clock = clock

    def read(self, region: str, resource_id: str) -> tuple[int, bool] | None:
        """Return the desired number of instances, and whether they all came up; None if there is no such variant.

        One that crashed later does not count: it is being replaced, and others may be needed all the more.
        """
        endpoint, variant = _parts(resource_id)
        resource = self._resources.get("endpoint", region, endpoint)
        found = _variant(resource, variant)
        if resource is None or found is None:
            return None
        return found.count, resource.status == Status.IN_SERVICE

    def least(self, region: str, resource_id: str) -> int:
        """Return how few instances there may be: none of an asynchronous endpoint, whose requests wait for one."""
        resource = self._resources.get("endpoint", region, _parts(resource_id)[0])
        return 0 if resource is not None and resource.document.get("AsyncInferenceConfig") else 1

    def change(self, region: str, resource_id: str, count: int) -> None:
        """Ask for *count* instances.

        Raises:
            AwsError: `ValidationException`, there is no such variant, or the endpoint is not in service.
        """
        endpoint, name = _parts(resource_id)

        def edit(resource: Resource) -> Change:
            run = endpoint_run(resource.document)
            if run.status is not Status.IN_SERVICE or _variant(resource, name) is None:
                raise validation_error(
                    f"{resource_id} cannot be scaled: its endpoint is in status {run.status.value}."
                )
            after, _ = step(run, CapacityRequested({name: (None, count)}), self._clock())
            return Change(after.status.value, endpoint_document(resource.document, after))

        try:
            changed = self._resources.update(
                "endpoint", region, endpoint, edit, f"scaled to {count} instances"
            )
        except Missing:
            raise validation_error(f"Could not find the endpoint of {resource_id}.") from None
        self._notify(changed.arn)


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

    def least(self, region: str, resource_id: str) -> int:
        """Return how few copies there may be: none."""
        return 0

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
    return next((v for v in variants if v.name == name and v.serverless is None), None)
