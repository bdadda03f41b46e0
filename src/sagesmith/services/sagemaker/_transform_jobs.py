"""The operations of transform jobs. The job itself is the driver's business, which is told to look at its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.clock import Clock
from sagesmith.errors import validation_error
from sagesmith.lifecycle.jobs import Status, StopRequested
from sagesmith.lifecycle.records import transform_document, transform_run
from sagesmith.lifecycle.transform import step
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import MODEL, TRANSFORM_JOB
from sagesmith.services.sagemaker._model_details import model_details
from sagesmith.services.sagemaker._transform_requests import check_transform_request, new_transform_document
from sagesmith.store.resources import Change, Resource

__all__ = ["TransformJobHandlers"]


class TransformJobHandlers:
    """Transform jobs.

    Args:
        notify: tells the driver to look at the job with this ARN; thread-safe.
        default_role_arn: the execution role of models that name none.
        owner: the name under which the driver claims jobs.
    """

    service = "sagemaker"

    def __init__(
        self,
        engine: Engine,
        notify: Callable[[str], None],
        *,
        check_instance_type: Callable[[str], object],
        default_role_arn: str,
        clock: Clock,
        owner: str,
    ) -> None:
        self._engine = engine
        self._notify = notify
        self._check_instance_type = check_instance_type
        self._default_role_arn = default_role_arn
        self._clock = clock
        self._owner = owner

    @operation("CreateTransformJob")
    def create_transform_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the request, store the job and let it start."""
        name = request["TransformJobName"]
        self._engine.check_free(call, TRANSFORM_JOB, name)
        model = self._engine.find(call, MODEL, request["ModelName"])
        check_transform_request(request, check_instance_type=self._check_instance_type)
        details = model_details(model.document, self._default_role_arn)
        arn = call.arn(f"{TRANSFORM_JOB.arn}/{name}")
        document = new_transform_document(request, details, arn, self._clock())
        resource = self._engine.create(
            call, TRANSFORM_JOB, request, document, status=Status.IN_PROGRESS.value, owner=self._owner
        )
        self._notify(resource.arn)
        return {"TransformJobArn": resource.arn}

    @operation("DescribeTransformJob", inline=True)
    def describe_transform_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the job."""
        return self._engine.describe(call, TRANSFORM_JOB, request)

    @operation("ListTransformJobs", inline=is_page)
    def list_transform_jobs(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of jobs."""
        return self._engine.list(call, TRANSFORM_JOB, request)

    @operation("StopTransformJob")
    def stop_transform_job(self, call: Call, request: Mapping[str, Any]) -> None:
        """Ask the job to end; outputs that are written stay."""
        at = self._clock()

        def edit(resource: Resource) -> Change | None:
            before = transform_run(resource.document)
            if before.over:
                raise validation_error(
                    f"The request was rejected because the transform job is in status {before.status.value}."
                )
            after = step(before, StopRequested(), at)
            if after is before:
                return None
            return Change(after.status.value, transform_document(resource.document, after))

        resource = self._engine.update(call, TRANSFORM_JOB, request["TransformJobName"], edit)
        self._notify(resource.arn)
