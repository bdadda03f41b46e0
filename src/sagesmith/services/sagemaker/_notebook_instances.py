"""The operations of notebook instances. Bringing their JupyterLab up and down is the driver's business."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from sagesmith.aws.call import Call, operation
from sagesmith.clock import Clock
from sagesmith.errors import AwsError, validation_error
from sagesmith.instance.volume import GIB
from sagesmith.lifecycle.notebook import (
    DeleteRequested,
    Event,
    InvalidTransition,
    NotebookRun,
    StartRequested,
    Status,
    StopRequested,
    create,
    step,
)
from sagesmith.lifecycle.records import notebook_document, notebook_run
from sagesmith.notebooks.addresses import base_path
from sagesmith.notebooks.sessions import new_ticket
from sagesmith.services.sagemaker._checks import check_unique
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import CODE_REPOSITORY, NOTEBOOK_INSTANCE, NOTEBOOK_LIFECYCLE_CONFIG
from sagesmith.store.resources import Change, Resource

__all__ = ["NotebookInstanceHandlers"]

_DEFAULTS: Final[Mapping[str, Any]] = {
    "DirectInternetAccess": "Enabled",
    "VolumeSizeInGB": 5,
    "RootAccess": "Enabled",
    "PlatformIdentifier": "notebook-al2-v3",
    "InstanceMetadataServiceConfiguration": {"MinimumInstanceMetadataServiceVersion": "1"},
}
_RENAMED: Final[Mapping[str, str]] = {
    "LifecycleConfigName": "NotebookInstanceLifecycleConfigName",
    "SecurityGroupIds": "SecurityGroups",
}
_DISASSOCIATED: Final[Mapping[str, str]] = {
    "DisassociateLifecycleConfig": "NotebookInstanceLifecycleConfigName",
    "DisassociateDefaultCodeRepository": "DefaultCodeRepository",
    "DisassociateAdditionalCodeRepositories": "AdditionalCodeRepositories",
    "DisassociateAcceleratorTypes": "AcceleratorTypes",
}
_LONGEST_SESSION_S: Final = 43_200


class NotebookInstanceHandlers:
    """Notebook instances.

    Args:
        notify: tells the driver to look at the notebook with this ARN; thread-safe.
        volume_bytes: returns how much lies in the volume of a notebook, by its uid.
        owner: the name under which the driver claims notebooks.
        url: returns where this server answers to browsers that do not say how they found it.
    """

    service = "sagemaker"

    def __init__(
        self,
        engine: Engine,
        notify: Callable[[str], None],
        *,
        check_instance_type: Callable[[str], object],
        check_role: Callable[[str], None],
        volume_bytes: Callable[[str], int],
        url: Callable[[], str],
        clock: Clock,
        owner: str,
    ) -> None:
        self._engine = engine
        self._notify = notify
        self._check_instance_type = check_instance_type
        self._check_role = check_role
        self._volume_bytes = volume_bytes
        self._url = url
        self._clock = clock
        self._owner = owner

    @operation("CreateNotebookInstance")
    def create_notebook_instance(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the request, store the notebook and let it start."""
        name = request["NotebookInstanceName"]
        if not name:
            raise validation_error("NotebookInstanceName must not be empty.")
        self._engine.check_free(call, NOTEBOOK_INSTANCE, name)
        self._check(call, request)
        if request.get("DirectInternetAccess") == "Disabled" and not request.get("SubnetId"):
            raise validation_error(
                "DirectInternetAccess can be Disabled only if SubnetId is given. Any subnet id will do here: the "
                "notebook then reaches nothing but this server."
            )
        members = {
            _RENAMED.get(m, m): v for m, v in request.items() if m != "Tags" and v not in (None, "", [])
        }
        document = {
            **_DEFAULTS,
            **members,
            "Url": f"{urlsplit(self._base(call)).netloc}{base_path(call.region, name)}",
        }
        run = create(f"nb-{secrets.token_hex(6)}", secrets.token_hex(32))
        resource = self._engine.create(
            call,
            NOTEBOOK_INSTANCE,
            request,
            notebook_document(document, run),
            status=run.status.value,
            owner=self._owner,
        )
        self._notify(resource.arn)
        return {"NotebookInstanceArn": resource.arn}

    @operation("DescribeNotebookInstance", inline=True)
    def describe_notebook_instance(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the notebook."""
        return self._engine.describe(call, NOTEBOOK_INSTANCE, request)

    @operation("ListNotebookInstances", inline=is_page)
    def list_notebook_instances(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of notebooks."""
        return self._engine.list(call, NOTEBOOK_INSTANCE, request)

    @operation("StartNotebookInstance")
    def start_notebook_instance(self, call: Call, request: Mapping[str, Any]) -> None:
        """Start a notebook that is stopped; its files are as they were."""
        self._check_volume(call, request["NotebookInstanceName"])
        url = f"{urlsplit(self._base(call)).netloc}{base_path(call.region, request['NotebookInstanceName'])}"
        self._step(call, request, StartRequested(secrets.token_hex(32)), {"Url": url})

    @operation("StopNotebookInstance")
    def stop_notebook_instance(self, call: Call, request: Mapping[str, Any]) -> None:
        """End the notebook's JupyterLab and kernels; its files stay."""
        self._step(call, request, StopRequested())

    @operation("DeleteNotebookInstance")
    def delete_notebook_instance(self, call: Call, request: Mapping[str, Any]) -> None:
        """Forget a notebook that is stopped, with its files."""
        self._step(call, request, DeleteRequested())

    @operation("UpdateNotebookInstance")
    def update_notebook_instance(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change a notebook that is stopped; it starts with what was changed."""
        self._check(call, request)
        for member, target in _DISASSOCIATED.items():
            given = next((m for m in (target, *_names_of(target)) if request.get(m)), "")
            if request.get(member) and given:
                raise validation_error(f"{member} and {given} cannot be given together.")

        def edit(resource: Resource) -> Change:
            run = notebook_run(resource.document)
            if run.status is not Status.STOPPED:
                raise validation_error(
                    f"Status ({run.status.value}) not in ([Stopped]). Unable to transition to (Updating) for "
                    f"Notebook Instance ({resource.arn}). Stop it first."
                )
            document = dict(resource.document)
            size = request.get("VolumeSizeInGB")
            if size is not None and size < document["VolumeSizeInGB"]:
                raise validation_error(
                    f"Requested volume size {size} GB is smaller than the present {document['VolumeSizeInGB']} GB: "
                    "the volume of a notebook instance can only grow."
                )
            for member, value in request.items():
                if member in _DISASSOCIATED:
                    if value:
                        document.pop(_DISASSOCIATED[member], None)
                elif member != "NotebookInstanceName":
                    document[_RENAMED.get(member, member)] = value
            return Change(document=document)

        self._engine.update(call, NOTEBOOK_INSTANCE, request["NotebookInstanceName"], edit)
        return {}

    @operation("CreatePresignedNotebookInstanceUrl")
    def create_presigned_notebook_instance_url(
        self, call: Call, request: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return a URL that lets whoever opens it first into the notebook."""
        name = request["NotebookInstanceName"]
        found = self._engine.find(call, NOTEBOOK_INSTANCE, name)
        run = notebook_run(found.document)
        if run.status is not Status.IN_SERVICE:
            raise validation_error(
                f"Unable to create presigned URL for Notebook Instance ({found.arn}) in status {run.status.value}: "
                "it must be InService."
            )
        duration = request.get("SessionExpirationDurationInSeconds") or _LONGEST_SESSION_S
        ticket = new_ticket(run.secret, self._clock(), duration)
        return {"AuthorizedUrl": f"{self._base(call)}{base_path(call.region, name)}?authToken={ticket}"}

    def _base(self, call: Call) -> str:
        """Where the caller's browser finds this server: as he did, unless it was under a name of AWS's or without TLS."""
        found = urlsplit(call.endpoint_url)
        if found.scheme != "https" or (found.hostname or "").endswith((".amazonaws.com", ".api.aws")):
            return self._url()
        return call.endpoint_url

    def _check(self, call: Call, request: Mapping[str, Any]) -> None:
        """Refuse what cannot work, in AWS's words.

        Raises:
            AwsError: `ValidationException`.
        """
        if request.get("InstanceType"):
            self._check_instance_type(request["InstanceType"])
        if request.get("RoleArn"):
            self._check_role(request["RoleArn"])
        if request.get("AcceleratorTypes"):
            raise validation_error(
                "AcceleratorTypes cannot be used: Amazon Elastic Inference is no longer offered. Leave it out."
            )
        if request.get("PlatformIdentifier") == "notebook-al1-v1":
            raise validation_error(
                "PlatformIdentifier notebook-al1-v1 is deprecated. Use notebook-al2-v3 or notebook-al2023-v1."
            )
        if request.get("LifecycleConfigName"):
            self._engine.find(call, NOTEBOOK_LIFECYCLE_CONFIG, request["LifecycleConfigName"])
        repositories = [
            *([request["DefaultCodeRepository"]] if request.get("DefaultCodeRepository") else ()),
            *(request.get("AdditionalCodeRepositories") or ()),
        ]
        check_unique(repositories, "code repository", "additionalCodeRepositories")
        for repository in repositories:
            if not repository.startswith("https://"):
                self._check_repository(call, repository)

    def _check_volume(self, call: Call, name: str) -> None:
        """Refuse to start a stopped notebook whose volume holds more than it has: nothing would keep it from growing on.

        One that is Failed may start: it could not be changed before.
        """
        document = self._engine.find(call, NOTEBOOK_INSTANCE, name).document
        run = notebook_run(document)
        if run.status is not Status.STOPPED:
            return
        size, held = document["VolumeSizeInGB"], self._volume_bytes(run.uid)
        if held > size * GIB:
            raise validation_error(
                f"The volume of {name} holds {held / GIB:.1f} GB, more than its VolumeSizeInGB of {size}. Raise that "
                "with UpdateNotebookInstance, and start it then."
            )

    def _check_repository(self, call: Call, name: str) -> None:
        found = self._engine.find(call, CODE_REPOSITORY, name)
        if found.document.get("GitConfig", {}).get("SecretArn"):
            raise validation_error(
                f"The code repository {name} has a SecretArn, and Sagesmith has no Secrets Manager to look it up in. "
                "Use a repository that can be read without, or clone it in the notebook."
            )

    def _step(
        self, call: Call, request: Mapping[str, Any], event: Event, changed: Mapping[str, Any] | None = None
    ) -> None:
        def edit(resource: Resource) -> Change | None:
            before = notebook_run(resource.document)
            after = _after(before, event, resource.arn)
            if after is before:
                return None
            document = notebook_document({**resource.document, **(changed or {})}, after)
            return Change(after.status.value, document)

        resource = self._engine.update(call, NOTEBOOK_INSTANCE, request["NotebookInstanceName"], edit)
        self._notify(resource.arn)


def _after(run: NotebookRun, event: Event, arn: str) -> NotebookRun:
    try:
        return step(run, event)
    except InvalidTransition as error:
        raise AwsError("ValidationException", f"{error} for Notebook Instance ({arn})") from None


def _names_of(target: str) -> list[str]:
    return [theirs for theirs, ours in _RENAMED.items() if ours == target]
