"""`DeploymentConfig`: what an update is told about how to go over, checked and as the lifecycle takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagesmith.errors import AwsError, validation_error
from sagesmith.lifecycle.endpoint import Deployment, Policy, Size

__all__ = ["check_policy", "policy_of"]


def check_policy(config: Mapping[str, Any] | None, has_alarm: Callable[[str], bool]) -> None:
    """Refuse a configuration that makes no sense.

    Raises:
        AwsError: `ValidationException`, saying which member and why.
    """
    if not config:
        return
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        raise validation_error(
            "DeploymentConfig can have BlueGreenUpdatePolicy or RollingUpdatePolicy, not both."
        )
    if blue_green:
        _check_routing(blue_green["TrafficRoutingConfiguration"])
    if rolling:
        where = "DeploymentConfig.RollingUpdatePolicy"
        _check_size(rolling["MaximumBatchSize"], f"{where}.MaximumBatchSize", (5, 50))
        if rolling.get("RollbackMaximumBatchSize"):
            _check_size(rolling["RollbackMaximumBatchSize"], f"{where}.RollbackMaximumBatchSize", (5, 100))
    for alarm in (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or ():
        if "AlarmName" not in alarm:
            raise validation_error("An alarm of AutoRollbackConfiguration has no AlarmName: name it.")
        if not has_alarm(alarm["AlarmName"]):
            raise validation_error(
                f'Could not find the CloudWatch alarm "{alarm["AlarmName"]}" of AutoRollbackConfiguration. '
                "Create it with PutMetricAlarm first."
            )


def policy_of(config: Mapping[str, Any] | None, deployment: Deployment) -> Policy:
    """Return the policy that *config*, which was checked, asks of an update to *deployment*.

    Raises:
        AwsError: `ValidationException`, a size asks for more instances than *deployment* has.
    """
    if not config:
        return Policy()
    alarms = (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or ()
    names = tuple(alarm["AlarmName"] for alarm in alarms)
    count = sum(variant.count for variant in deployment.variants if not variant.shadow)
    rolling = config.get("RollingUpdatePolicy")
    if rolling:
        back = rolling.get("RollbackMaximumBatchSize")
        return Policy(
            rolling=True,
            first=_size(rolling["MaximumBatchSize"], count),
            further=_size(back, count) if back else None,
            wait_s=float(rolling["WaitIntervalInSeconds"]),
            timeout_s=float(rolling.get("MaximumExecutionTimeoutInSeconds") or 0),
            alarms=names,
        )
    blue_green = config.get("BlueGreenUpdatePolicy")
    if not blue_green:
        return Policy(alarms=names)
    routing = blue_green["TrafficRoutingConfiguration"]
    canary, linear = routing.get("CanarySize"), routing.get("LinearStepSize")
    first = canary or linear
    return Policy(
        first=_size(first, count) if first else None,
        further=_size(linear, count) if linear else None,
        wait_s=float(routing["WaitIntervalInSeconds"]),
        termination_wait_s=float(blue_green.get("TerminationWaitInSeconds") or 0),
        timeout_s=float(blue_green.get("MaximumExecutionTimeoutInSeconds") or 0),
        alarms=names,
    )


def _check_routing(routing: Mapping[str, Any]) -> None:
    where = "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration"
    kind = routing["Type"]
    sizes = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
    for of, member in sizes.items():
        if of == kind and not routing.get(member):
            raise validation_error(f"{where}.{member} must be given for traffic routing of type {kind}.")
        if of != kind and routing.get(member):
            raise validation_error(f"{where}.{member} is for traffic routing of type {of}, not {kind}.")
    if kind == "CANARY":
        _check_size(routing["CanarySize"], f"{where}.CanarySize", (1, 50))
    if kind == "LINEAR":
        _check_size(routing["LinearStepSize"], f"{where}.LinearStepSize", (10, 50))


def _check_size(size: Mapping[str, Any], where: str, percent: tuple[int, int]) -> None:
    least, most = percent
    if size["Type"] == "CAPACITY_PERCENT" and not least <= size["Value"] <= most:
        raise validation_error(
            f"{where}.Value must be between {least} and {most} percent, not {size['Value']}."
        )


def _size(size: Mapping[str, Any], count: int) -> Size:
    percent = size["Type"] == "CAPACITY_PERCENT"
    if not percent and size["Value"] > count:
        raise _too_large(size["Value"], count)
    return Size(int(size["Value"]), percent)


def _too_large(value: int, count: int) -> AwsError:
    return validation_error(
        f"The DeploymentConfig asks for steps of {value} instances, but the endpoint configuration has {count} in all."
    )
