"""What Application Auto Scaling knows: scalable targets with their policies, scheduled actions and activities.

All are resources. What belongs to a target has the target's name as its parent; documents are what the Describe
operations show, with the driver's own notes under `NOTES`.
"""

from __future__ import annotations

import builtins
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sagesmith.arns import Arn, partition_of
from sagesmith.clock import Clock, system_clock
from sagesmith.store.queries import ListQuery
from sagesmith.store.resources import AlreadyExists, Change, Changed, Missing, Resource, Resources

__all__ = ["ACTION", "ACTIVITY", "NOTES", "POLICY", "TARGET", "Scaling", "Target"]

TARGET: Final = "scalable-target"
POLICY: Final = "scaling-policy"
ACTION: Final = "scheduled-scaling-action"
ACTIVITY: Final = "scaling-activity"
NOTES: Final = "$notes"
IN_PROGRESS: Final = "InProgress"


_QUANTITIES: Final = {
    "sagemaker:inference-component:DesiredCopyCount": "copy count",
    "sagemaker:variant:DesiredProvisionedConcurrency": "provisioned concurrency",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled: a dimension of a resource of a service, in a region."""

    region: str
    namespace: str
    resource_id: str
    dimension: str

    @property
    def kind(self) -> tuple[str, str]:
        """What kind of thing is scaled: service namespace and dimension."""
        return self.namespace, self.dimension

    @property
    def quantity(self) -> str:
        """What its number is, as activities say it."""
        return _QUANTITIES.get(self.dimension, "instance count")

    @property
    def name(self) -> str:
        """Its name as a resource."""
        return f"{self.namespace}|{self.resource_id}|{self.dimension}"

    @property
    def members(self) -> dict[str, str]:
        """The members that name it in requests and answers."""
        return {
            "ServiceNamespace": self.namespace,
            "ResourceId": self.resource_id,
            "ScalableDimension": self.dimension,
        }

    @classmethod
    def of(cls, region: str, document: Mapping[str, Any]) -> Target:
        """Return the target that *document* names."""
        return cls(
            region, document["ServiceNamespace"], document["ResourceId"], document["ScalableDimension"]
        )


class Scaling:
    """All of it. Thread-safe."""

    def __init__(self, resources: Resources, account_id: str, clock: Clock = system_clock) -> None:
        self._resources = resources
        self._account_id = account_id
        self._clock = clock

    # ---- targets ----

    def put_target(
        self, target: Target, settings: Mapping[str, Any], *, tags: Mapping[str, str] | None = None
    ) -> Resource:
        """Register *target*, or change its settings; returns it."""
        arn = self._arn("application-autoscaling", target.region, f"scalable-target/{secrets.token_hex(16)}")
        return self._put(TARGET, target, "", arn, settings, {"ScalableTargetARN": arn}, tags=tags)

    def target(self, target: Target) -> Resource | None:
        """Return the registered target, or None."""
        return self._resources.get(TARGET, target.region, target.name)

    def delete_target(self, target: Target) -> None:
        """Forget the target and its policies and scheduled actions; its activities stay."""
        for kind in (POLICY, ACTION):
            for resource in self.list(kind, target.region, target):
                self._delete(resource)
        found = self.target(target)
        if found is not None:
            self._delete(found)

    # ---- policies and scheduled actions ----

    def put_policy(self, target: Target, name: str, settings: Mapping[str, Any]) -> Resource:
        """Make a policy of *target*, or give it other settings; its ARN stays."""
        resource = (
            f"scalingPolicy:{uuid.uuid4()}:resource/{target.namespace}/{target.resource_id}:policyName/{name}"
        )
        arn = self._arn("autoscaling", target.region, resource)
        return self._put(POLICY, target, name, arn, settings, {"PolicyName": name, "PolicyARN": arn})

    def put_action(self, target: Target, name: str, settings: Mapping[str, Any]) -> Resource:
        """Make a scheduled action of *target*, or give it other settings."""
        resource = f"scheduledAction:{uuid.uuid4()}:resource/{target.namespace}/{target.resource_id}:scheduledActionName/{name}"
        arn = self._arn("autoscaling", target.region, resource)
        more = {"ScheduledActionName": name, "ScheduledActionARN": arn}
        return self._put(ACTION, target, name, arn, settings, more)

    def get(self, kind: str, target: Target, name: str) -> Resource | None:
        """Return the policy or scheduled action of that name, or None."""
        return self._resources.get(kind, target.region, f"{target.name}|{name}")

    def delete(self, kind: str, target: Target, name: str) -> None:
        """Remove the policy or scheduled action of that name, if it is there."""
        found = self.get(kind, target, name)
        if found is not None:
            self._delete(found)

    def by_arn(self, arn: str) -> Resource | None:
        """Return the policy, target or scheduled action with this ARN, or None."""
        return self._resources.by_arn(arn)

    def actions(self) -> builtins.list[Resource]:
        """Return the scheduled actions of all regions."""
        return self._resources.with_status(ACTION, [""])

    def note(self, resource: Resource, notes: Mapping[str, Any]) -> None:
        """Keep *notes* of the driver with the resource, if it is still there."""
        self._update(resource, lambda document: {**document, NOTES: dict(notes)})

    def settings(self, resource: Resource, **changed: Any) -> None:
        """Change members of the resource, if it is still there."""
        self._update(resource, lambda document: {**document, **changed})

    # ---- activities ----

    def begin_activity(self, target: Target, cause: str, wanted: int) -> Resource:
        """Write down that scaling to *wanted* begins."""
        name = str(uuid.uuid4())
        document = {
            **target.members,
            "ActivityId": name,
            "Description": f"Setting desired {target.quantity} to {wanted}.",
            "Cause": cause,
            "StartTime": self._clock(),
            "StatusCode": IN_PROGRESS,
            "StatusMessage": f"Successfully set desired {target.quantity} to {wanted}. "
            "Waiting for change to be fulfilled by sagemaker.",
            NOTES: {"wanted": wanted},
        }
        arn = self._arn("application-autoscaling", target.region, f"scaling-activity/{name}")
        return self._resources.create(
            ACTIVITY, target.region, name, arn=arn, document=document, status=IN_PROGRESS, parent=target.name
        )

    def end_activity(self, activity: Resource, status: str, message: str) -> None:
        """Write down how scaling ended."""
        members = {"StatusCode": status, "StatusMessage": message, "EndTime": self._clock()}
        self._update(activity, lambda document: {**document, **members}, status)

    def in_progress(self) -> builtins.list[Resource]:
        """Return the activities of all regions that have not ended."""
        return self._resources.with_status(ACTIVITY, [IN_PROGRESS])

    # ---- lists ----

    def list(self, kind: str, region: str, target: Target | None = None) -> builtins.list[Resource]:
        """Return everything of *kind* in *region*, or of *target* only; activities the latest first."""
        found: list[Resource] = []
        token: str | None = None
        while True:
            query = ListQuery(
                parent=target.name if target is not None and kind != TARGET else None,
                sort_by="created", descending=kind == ACTIVITY, limit=500, token=token,
            )  # fmt: skip
            page = self._resources.list(kind, region, query)
            found += page.items
            token = page.next_token
            if token is None:
                return found

    # ---- inside ----

    def _put(
        self,
        kind: str,
        target: Target,
        name: str,
        arn: str,
        settings: Mapping[str, Any],
        identity: Mapping[str, Any],
        *,
        tags: Mapping[str, str] | None = None,
    ) -> Resource:
        key = f"{target.name}|{name}" if name else target.name

        def edit(resource: Resource) -> Change:
            kept = {m: resource.document[m] for m in (*identity, "CreationTime")}
            return Change(document={**target.members, **settings, **kept})

        while True:
            try:
                return self._resources.update(kind, target.region, key, edit)
            except Missing:
                document = {**target.members, **settings, **identity, "CreationTime": self._clock()}
                parent = target.name if name else ""
                try:
                    return self._resources.create(
                        kind, target.region, key, arn=arn, document=document, parent=parent, tags=tags
                    )
                except AlreadyExists:
                    continue

    def _update(
        self,
        resource: Resource,
        change: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        status: str | None = None,
    ) -> None:
        def edit(found: Resource) -> Change | None:
            return Change(status, change(found.document)) if found.created == resource.created else None

        try:
            self._resources.update(resource.kind, resource.region, resource.name, edit)
        except Missing:
            return

    def _delete(self, resource: Resource) -> None:
        current: Resource | None = resource
        while current is not None:
            try:
                self._resources.delete(current)
            except Changed:
                current = self._resources.get(resource.kind, resource.region, resource.name)
            else:
                return

    def _arn(self, service: str, region: str, resource: str) -> str:
        return str(Arn(service, region, self._account_id, resource, partition_of(region)))
