"""The operations of endpoints. Bringing instances up and down is the driver's business."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.clock import Clock
from sagesmith.errors import validation_error
from sagesmith.lifecycle.endpoint import (
    CapacityRequested,
    DeleteRequested,
    Deployment,
    EndpointRun,
    Event,
    Status,
    UpdateRequested,
    create,
    step,
)
from sagesmith.lifecycle.records import endpoint_document, endpoint_run
from sagesmith.services.sagemaker._checks import check_unique
from sagesmith.services.sagemaker._deployment_configs import check_policy, policy_of
from sagesmith.services.sagemaker._endpoint_configs import MAX_INSTANCES, new_deployment
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import ENDPOINT, INFERENCE_COMPONENT
from sagesmith.services.sagemaker._serverless_configs import check_update
from sagesmith.store.resources import Change, ListQuery, Resource

__all__ = ["EndpointHandlers"]

_BUSY: Final = (Status.CREATING, Status.UPDATING, Status.ROLLING_BACK, Status.DELETING)


class EndpointHandlers:
    """Endpoints.

    Args:
        notify: tells the driver to look at the endpoint with this ARN; thread-safe.
        owner: the name under which the driver claims endpoints.
        default_role_arn: the execution role of models that name none.
        has_alarm: whether a region has a CloudWatch alarm of that name.
    """

    service = "sagemaker"

    def __init__(
        self,
        engine: Engine,
        notify: Callable[[str], None],
        *,
        default_role_arn: str,
        has_alarm: Callable[[str, str], bool],
        clock: Clock,
        owner: str,
    ) -> None:
        self._engine = engine
        self._notify = notify
        self._owner = owner
        self._default_role_arn = default_role_arn
        self._has_alarm = has_alarm
        self._clock = clock

    @operation("CreateEndpoint")
    def create_endpoint(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the endpoint and let it come up."""
        name = request["EndpointName"]
        self._engine.check_free(call, ENDPOINT, name)
        check_policy(request.get("DeploymentConfig"), self._alarm_checker(call))
        run = create(
            f"i-{secrets.token_hex(6)}", self._deployment(call, request["EndpointConfigName"]), self._clock()
        )
        document = {member: value for member, value in request.items() if member != "DeploymentConfig"}
        if request.get("DeploymentConfig"):
            document["LastDeploymentConfig"] = request["DeploymentConfig"]
        resource = self._engine.create(
            call,
            ENDPOINT,
            request,
            endpoint_document(document, run),
            status=run.status.value,
            owner=self._owner,
        )
        self._notify(resource.arn)
        return {"EndpointArn": resource.arn}

    @operation("DescribeEndpoint", inline=True)
    def describe_endpoint(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the endpoint."""
        return self._engine.describe(call, ENDPOINT, request)

    @operation("ListEndpoints", inline=is_page)
    def list_endpoints(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of endpoints."""
        return self._engine.list(call, ENDPOINT, request)

    @operation("UpdateEndpoint")
    def update_endpoint(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Bring up another configuration; what serves now goes on until the new one is ready."""
        given = request.get("DeploymentConfig")
        check_policy(given, self._alarm_checker(call))
        excluded = {p["VariantPropertyType"] for p in request.get("ExcludeRetainedVariantProperties") or ()}
        found = self._engine.find(call, ENDPOINT, request["EndpointName"])
        deployment = self._deployment(call, request["EndpointConfigName"])
        self._check_components(call, found.name, deployment)
        retained = bool(request.get("RetainDeploymentConfig"))

        def event(run: EndpointRun) -> Event:
            wanted = deployment
            if request.get("RetainAllVariantProperties") and run.current is not None:
                wanted = _retain(deployment, run.current, excluded)
            config = given or (found.document.get("LastDeploymentConfig") if retained else None)
            if config and config.get("RollingUpdatePolicy") and _has_serverless(run, wanted):
                raise validation_error(
                    "RollingUpdatePolicy replaces instances, of which a serverless endpoint has none. Use "
                    "BlueGreenUpdatePolicy, or leave DeploymentConfig out."
                )
            return UpdateRequested(wanted, policy_of(config, wanted))

        def also(document: dict[str, Any]) -> None:
            if given:
                document["LastDeploymentConfig"] = given
            elif not retained:
                document.pop("LastDeploymentConfig", None)

        return {"EndpointArn": self._step(call, found.name, event, also).arn}

    @operation("UpdateEndpointWeightsAndCapacities")
    def update_endpoint_weights_and_capacities(
        self, call: Call, request: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Change weights and numbers of instances of variants that serve."""
        wanted = request["DesiredWeightsAndCapacities"]
        check_unique((w["VariantName"] for w in wanted), "variant name", "desiredWeightsAndCapacities")
        for one in wanted:
            count = one.get("DesiredInstanceCount")
            if count is not None and not 1 <= count <= MAX_INSTANCES:
                raise validation_error(
                    f"DesiredInstanceCount of variant {one['VariantName']} must be between 1 and {MAX_INSTANCES}, "
                    f"not {count}."
                )
        changes = {w["VariantName"]: (w.get("DesiredWeight"), w.get("DesiredInstanceCount")) for w in wanted}

        def event(run: EndpointRun) -> Event:
            variants = run.current.variants if run.current else ()
            unknown = sorted(set(changes) - {v.name for v in variants})
            if unknown:
                raise validation_error(
                    f"The endpoint has no variant {', '.join(unknown)}; it has {', '.join(v.name for v in variants)}."
                )
            weights = [changes.get(v.name, (None, None))[0] for v in variants]
            pairs = [(v, w) for v, w in zip(variants, weights, strict=True) if not v.shadow]
            if sum(v.weight if w is None else w for v, w in pairs) <= 0:
                raise validation_error("At least one variant must keep a weight above 0.")
            asked = {w["VariantName"]: w for w in wanted}
            concurrency = {v.name: check_update(asked[v.name], v) for v in variants if v.name in asked}
            return CapacityRequested(changes, concurrency=concurrency)

        return {"EndpointArn": self._step(call, request["EndpointName"], event).arn}

    @operation("DeleteEndpoint")
    def delete_endpoint(self, call: Call, request: Mapping[str, Any]) -> None:
        """Let the endpoint's instances end, then forget it."""
        at = self._clock()
        name = self._engine.find(call, ENDPOINT, request["EndpointName"]).name
        components = self._components(call, name)
        if components:
            raise validation_error(
                f'Cannot delete endpoint "{call.arn(f"{ENDPOINT.arn}/{name}")}": it hosts the inference components '
                f"{', '.join(c.name for c in components)}. Delete them first."
            )

        def edit(resource: Resource) -> Change | None:
            run = endpoint_run(resource.document)
            if run.status is Status.DELETING:
                return None
            after, _ = step(run, DeleteRequested(), at)
            return Change(after.status.value, endpoint_document(resource.document, after))

        resource = self._engine.update(call, ENDPOINT, request["EndpointName"], edit)
        if resource.status == Status.DELETED:
            self._engine.resources.delete(resource)
        self._notify(resource.arn)

    def _components(self, call: Call, endpoint: str) -> Sequence[Resource]:
        """Return inference components that are on the endpoint, some if there are many."""
        query = ListQuery(parent=endpoint, limit=100)
        return self._engine.resources.list(INFERENCE_COMPONENT.arn, call.region, query).items

    def _check_components(self, call: Call, endpoint: str, deployment: Deployment) -> None:
        """Refuse an update that would leave inference components without instances."""
        vacant = {v.name for v in deployment.variants if v.details.get("vacant")}
        for component in self._components(call, endpoint):
            if component.document["VariantName"] not in vacant:
                raise validation_error(
                    f"The endpoint configuration {deployment.config_name} has no variant "
                    f"{component.document['VariantName']} for inference components, but {component.name} is on that. "
                    "Keep the variant, or delete the component first."
                )

    def _alarm_checker(self, call: Call) -> Callable[[str], bool]:
        return lambda name: self._has_alarm(call.region, name)

    def _deployment(self, call: Call, config_name: str) -> Deployment:
        return new_deployment(
            self._engine, call, config_name, default_role_arn=self._default_role_arn, now=self._clock()
        )

    def _step(
        self,
        call: Call,
        name: str,
        event: Callable[[EndpointRun], Event],
        also: Callable[[dict[str, Any]], None] = lambda document: None,
    ) -> Resource:
        at = self._clock()

        def edit(resource: Resource) -> Change:
            run = endpoint_run(resource.document)
            if run.status in _BUSY:
                raise validation_error(f'Cannot update in-progress endpoint "{resource.arn}".')
            if run.status is not Status.IN_SERVICE:
                raise validation_error(
                    f'Cannot update endpoint "{resource.arn}" in status {run.status.value}. '
                    "Delete it and create it again."
                )
            after, _ = step(run, event(run), at)
            document = endpoint_document(resource.document, after)
            also(document)
            return Change(after.status.value, document)

        resource = self._engine.update(call, ENDPOINT, name, edit)
        self._notify(resource.arn)
        return resource


def _has_serverless(run: EndpointRun, wanted: Deployment) -> bool:
    variants = (*(run.current.variants if run.current else ()), *wanted.variants)
    return any(variant.serverless is not None for variant in variants)


def _retain(deployment: Deployment, current: Deployment, excluded: set[str]) -> Deployment:
    """Return *deployment* with the weights and counts that variants of the same name have now."""
    present = {v.name: v for v in current.variants}
    variants = []
    for variant in deployment.variants:
        old = present.get(variant.name, variant)
        weight = variant.weight if "DesiredWeight" in excluded else old.weight
        own = "DesiredInstanceCount" in excluded or variant.serverless or old.serverless
        count = variant.count if own else old.count
        variants.append(replace(variant, weight=weight, count=count))
    return replace(deployment, variants=tuple(variants))
