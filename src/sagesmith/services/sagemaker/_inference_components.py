"""The operations of inference components. Where copies run, and that they do, is the driver's business."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.clock import Clock
from sagesmith.errors import AwsError, validation_error
from sagesmith.lifecycle import component, endpoint
from sagesmith.lifecycle.component import ComponentRun
from sagesmith.lifecycle.endpoint import CapacityRequested, Deployment, Policy, Size, Status, Variant
from sagesmith.lifecycle.records import component_document, component_run, component_status, endpoint_run
from sagesmith.services.sagemaker._checks import not_available, refuse
from sagesmith.services.sagemaker._deployment_configs import check_policy, policy_of
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import ENDPOINT, INFERENCE_COMPONENT, MODEL
from sagesmith.services.sagemaker._model_details import model_details, start_limits
from sagesmith.store.resources import Change, Resource

__all__ = ["InferenceComponentHandlers"]

MAX_COPIES: Final = 1000
_BUSY: Final = (Status.CREATING, Status.UPDATING, Status.ROLLING_BACK, Status.DELETING)
_LAST_CONFIG: Final = "LastDeploymentConfig"


class InferenceComponentHandlers:
    """Inference components: copies of a model on the instances of an endpoint.

    Args:
        notify: tells the driver to look at the component with this ARN; thread-safe.
        check_container: refuses a container that cannot be run with a role.
        has_alarm: whether a region has a CloudWatch alarm of that name.
        default_role_arn: the execution role of models that name none.
        owner: the name under which the driver claims components.
    """

    service = "sagemaker"

    def __init__(
        self,
        engine: Engine,
        notify: Callable[[str], None],
        *,
        check_container: Callable[[Call, Mapping[str, Any], str], None],
        has_alarm: Callable[[str, str], bool],
        default_role_arn: str,
        clock: Clock,
        owner: str,
    ) -> None:
        self._engine = engine
        self._notify = notify
        self._check_container = check_container
        self._has_alarm = has_alarm
        self._default_role_arn = default_role_arn
        self._clock = clock
        self._owner = owner

    @operation("CreateInferenceComponent")
    def create_inference_component(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the component and let its copies come up."""
        name = request["InferenceComponentName"]
        self._engine.check_free(call, INFERENCE_COMPONENT, name)
        found = self._engine.find(call, ENDPOINT, request["EndpointName"])
        home = _home(found, request.get("VariantName"))
        count = (request.get("RuntimeConfig") or {}).get("CopyCount", 1)
        if not request.get("Specification") and not request.get("Specifications"):
            raise validation_error("Specification must be given.")
        at = self._clock()
        deployment = self._deployment(call, request, home, count, at)
        run = component.create(f"c-{secrets.token_hex(6)}", deployment, at)
        document = {
            member: value
            for member, value in request.items()
            if member not in ("Specification", "Specifications", "RuntimeConfig")
        }
        document |= {"EndpointName": found.name, "EndpointArn": found.arn, "VariantName": home.name}
        resource = self._engine.create(
            call,
            INFERENCE_COMPONENT,
            request,
            component_document(document, run),
            status=component_status(run),
            owner=self._owner,
        )
        self._notify(resource.arn)
        return {"InferenceComponentArn": resource.arn}

    @operation("DescribeInferenceComponent", inline=True)
    def describe_inference_component(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the component."""
        return self._engine.describe(call, INFERENCE_COMPONENT, request)

    @operation("ListInferenceComponents", inline=is_page)
    def list_inference_components(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of components."""
        return self._engine.list(call, INFERENCE_COMPONENT, request)

    @operation("UpdateInferenceComponent")
    def update_inference_component(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Go over to another specification, some copies at a time, or to another number of copies."""
        config = request.get("DeploymentConfig")
        check_policy(config, lambda name: self._has_alarm(call.region, name))
        count = (request.get("RuntimeConfig") or {}).get("CopyCount")
        found = self._engine.find(call, INFERENCE_COMPONENT, request["InferenceComponentName"])
        if not request.get("Specification") and not request.get("Specifications"):
            if count is None:
                raise validation_error("Specification, RuntimeConfig or both must be given.")
            return self._scale(call, found.name, count)
        home = _home(
            self._engine.find(call, ENDPOINT, found.document["EndpointName"]), found.document["VariantName"]
        )
        at = self._clock()

        def event(run: ComponentRun) -> endpoint.Event:
            present = run.current.variants[0].count if run.current is not None else 1
            deployment = self._deployment(call, request, home, present if count is None else count, at)
            return endpoint.UpdateRequested(deployment, _policy(config, deployment))

        def also(document: dict[str, Any]) -> None:
            document.pop(_LAST_CONFIG, None)
            if config:
                document[_LAST_CONFIG] = config

        return self._step(call, found.name, event, also)

    @operation("UpdateInferenceComponentRuntimeConfig")
    def update_inference_component_runtime_config(
        self, call: Call, request: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Change the number of copies."""
        return self._scale(
            call, request["InferenceComponentName"], request["DesiredRuntimeConfig"]["CopyCount"]
        )

    @operation("DeleteInferenceComponent")
    def delete_inference_component(self, call: Call, request: Mapping[str, Any]) -> None:
        """Let the copies answer what they have and end, then forget the component."""
        at = self._clock()

        def edit(resource: Resource) -> Change | None:
            run = component_run(resource.document)
            if run.status is Status.DELETING:
                return None
            after = component.step(run, endpoint.DeleteRequested(), at)
            return Change(component_status(after), component_document(resource.document, after))

        resource = self._engine.update(call, INFERENCE_COMPONENT, request["InferenceComponentName"], edit)
        if component_run(resource.document).status is Status.DELETED:
            self._engine.resources.delete(resource)
        self._notify(resource.arn)

    # ---- parts of the above ----

    def _scale(self, call: Call, name: str, count: int) -> Mapping[str, Any]:
        _check_count(count)

        def event(run: ComponentRun) -> endpoint.Event:
            variants = run.current.variants if run.current is not None else ()
            return CapacityRequested({variant.name: (None, count) for variant in variants})

        return self._step(call, name, event)

    def _step(
        self,
        call: Call,
        name: str,
        event: Callable[[ComponentRun], endpoint.Event],
        also: Callable[[dict[str, Any]], None] = lambda document: None,
    ) -> Mapping[str, Any]:
        at = self._clock()

        def edit(resource: Resource) -> Change:
            run = component_run(resource.document)
            if run.status in _BUSY:
                raise validation_error(f'Cannot update in-progress inference component "{resource.arn}".')
            if run.status is not Status.IN_SERVICE:
                raise validation_error(
                    f'Cannot update inference component "{resource.arn}" in status {component_status(run)}. '
                    "Delete it and create it again."
                )
            after = component.step(run, event(run), at)
            document = component_document(resource.document, after)
            also(document)
            return Change(component_status(after), document)

        resource = self._engine.update(call, INFERENCE_COMPONENT, name, edit)
        self._notify(resource.arn)
        return {"InferenceComponentArn": resource.arn}

    def _deployment(
        self, call: Call, request: Mapping[str, Any], home: Variant, count: int, at: float
    ) -> Deployment:
        _check_count(count)
        if request.get("Specifications"):
            raise not_available("Specifications, for variants of several instance types")
        details = self._details(call, request["Specification"], home, at)
        return Deployment("", (Variant(home.name, 1.0, count, details),))

    def _details(
        self, call: Call, specification: Mapping[str, Any], home: Variant, at: float
    ) -> dict[str, Any]:
        """Return what a copy's start needs, copied out of model and variant.

        Raises:
            AwsError: `ValidationException`, the specification makes no sense or is not available yet.
        """
        requirements = _requirements(specification, home)
        name, container = specification.get("ModelName"), specification.get("Container")
        if bool(name) == bool(container):
            raise validation_error(
                "Exactly one of Specification.ModelName and Specification.Container must be given, not "
                f"{'both' if name else 'neither'}."
            )
        if name:
            model = self._engine.find(call, MODEL, name).document
            containers = model.get("Containers") or [model["PrimaryContainer"]]
            if len(containers) > 1 or containers[0].get("Mode") == "MultiModel":
                raise not_available(f"An inference component with several containers or models ({name})")
            details = model_details(model, self._default_role_arn)
        else:
            refuse(container or {}, ("ContainerMetricsConfig",), "Specification.Container")
            given = dict(container or {})
            if given.get("ArtifactUrl"):
                given["ModelDataUrl"] = given.pop("ArtifactUrl")
            self._check_container(call, given, home.details["role_arn"])
            model = {
                "ModelName": "",
                "PrimaryContainer": given,
                "ExecutionRoleArn": home.details["role_arn"],
                "EnableNetworkIsolation": home.details["network_isolation"],
            }
            details = model_details(model, self._default_role_arn)
        startup = specification.get("StartupParameters") or {}
        details |= {
            "resolved": at,
            "instance_type": home.details["instance_type"],
            **start_limits(startup),
            "requirements": requirements,
            "specification": dict(specification),
            "strategy": (specification.get("SchedulingConfig") or {}).get("PlacementStrategy", "SPREAD"),
        }
        if home.details.get("routing"):
            details["routing"] = home.details["routing"]
        return details


def _home(resource: Resource, wanted: str | None) -> Variant:
    """Return the endpoint's variant that a component is to be on.

    Raises:
        AwsError: `ValidationException`, the endpoint has no such variant, or is not in service.
    """
    run = endpoint_run(resource.document)
    if run.status not in (Status.IN_SERVICE, Status.UPDATING) or run.current is None:
        raise validation_error(
            f'Endpoint "{resource.arn}" is in status {run.status.value}. Wait until it is InService before you create '
            "inference components on it."
        )
    variants = {v.name: v for v in run.current.variants if v.details.get("vacant")}
    if not variants:
        raise validation_error(
            f'Endpoint "{resource.arn}" cannot host inference components: its variants have a ModelName. Make an '
            "endpoint configuration with an ExecutionRoleArn and without ModelName."
        )
    if not wanted and len(variants) > 1:
        raise validation_error(f"VariantName must be one of {', '.join(variants)}.")
    if wanted and wanted not in variants:
        raise validation_error(
            f'Endpoint "{resource.arn}" has no variant {wanted}; it has {", ".join(variants)}.'
        )
    return variants[wanted] if wanted else next(iter(variants.values()))


def _requirements(specification: Mapping[str, Any], home: Variant) -> dict[str, Any]:
    if specification.get("BaseInferenceComponentName"):
        raise validation_error(
            "Specification.BaseInferenceComponentName: adapter inference components are not available in Sagesmith. "
            "Make an inference component of each adapter with its base model, or a model with Mode MultiModel on an "
            "endpoint of its own, whose container loads adapters as models."
        )
    kind = specification.get("InstanceType")
    if kind and kind != home.details["instance_type"]:
        raise validation_error(
            f"Specification.InstanceType is {kind}, but variant {home.name} has instances of type "
            f"{home.details['instance_type']}."
        )
    requirements = specification.get("ComputeResourceRequirements")
    if not requirements:
        raise validation_error("Specification.ComputeResourceRequirements must be given.")
    where = "Specification.ComputeResourceRequirements"
    refuse(requirements, ("AcceleratorPartitionType",), where)
    least, most = requirements["MinMemoryRequiredInMb"], requirements.get("MaxMemoryRequiredInMb")
    if most is not None and most < least:
        raise validation_error(
            f"{where}.MaxMemoryRequiredInMb ({most}) must not be below MinMemoryRequiredInMb ({least})."
        )
    devices = requirements.get("NumberOfAcceleratorDevicesRequired") or 0
    if devices != int(devices):
        raise validation_error(
            f"{where}.NumberOfAcceleratorDevicesRequired must be a whole number, not {devices}."
        )
    return dict(requirements)


def _check_count(count: int) -> None:
    if count > MAX_COPIES:
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit 'Copies of an inference component' is {MAX_COPIES}, with a request for "
            f"{count}.",
        )


def _policy(config: Mapping[str, Any] | None, deployment: Deployment) -> Policy:
    """Return how an update goes over: as told, or one copy after another."""
    count = deployment.variants[0].count
    if config is None or not count:
        return Policy(rolling=True, first=Size(1)) if count else Policy()
    return policy_of(config, deployment)
