"""The operations of training jobs. The job itself is the driver's business, which is told to look at its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.clock import Clock
from sagesmith.errors import AwsError, resource_in_use, validation_error
from sagesmith.images import Image
from sagesmith.lifecycle.records import training_document, training_run
from sagesmith.lifecycle.training import TERMINAL, Status, StopRequested, step
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import TRAINING_JOB
from sagesmith.services.sagemaker._training_requests import check_training_request, new_training_document
from sagesmith.store.resources import Change, Resource

__all__ = ["TrainingJobHandlers"]

_UPDATABLE: Final = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig")


class TrainingJobHandlers:
    """Training jobs.

    Args:
        notify: tells the driver to look at the job with this ARN; thread-safe.
        owner: the name under which the driver claims jobs.
    """

    service = "sagemaker"

    def __init__(
        self,
        engine: Engine,
        notify: Callable[[str], None],
        *,
        resolve: Callable[[str], Image],
        check_instance_type: Callable[[str], object],
        check_role: Callable[[str], None],
        check_image: Callable[[Call, Image, str], None],
        clock: Clock,
        owner: str,
    ) -> None:
        self._engine = engine
        self._notify = notify
        self._owner = owner
        self._resolve = resolve
        self._check_instance_type = check_instance_type
        self._check_role = check_role
        self._check_image = check_image
        self._clock = clock

    @operation("CreateTrainingJob")
    def create_training_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the request, store the job and let it start."""
        self._engine.check_free(call, TRAINING_JOB, request["TrainingJobName"])
        image = check_training_request(
            request,
            resolve=self._resolve,
            check_instance_type=self._check_instance_type,
            check_role=self._check_role,
        )
        self._check_image(call, image, request["RoleArn"])
        arn = call.arn(f"{TRAINING_JOB.arn}/{request['TrainingJobName']}")
        document = new_training_document(request, image, arn, self._clock())
        status = Status.IN_PROGRESS.value
        resource = self._engine.create(
            call, TRAINING_JOB, request, document, status=status, owner=self._owner
        )
        self._notify(resource.arn)
        return {"TrainingJobArn": resource.arn}

    @operation("DescribeTrainingJob", inline=True)
    def describe_training_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the job."""
        return self._engine.describe(call, TRAINING_JOB, request)

    @operation("ListTrainingJobs", inline=is_page)
    def list_training_jobs(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of jobs."""
        return self._engine.list(call, TRAINING_JOB, request)

    @operation("StopTrainingJob")
    def stop_training_job(self, call: Call, request: Mapping[str, Any]) -> None:
        """Ask the job to end; it keeps what it has learnt."""
        at = self._clock()

        def edit(resource: Resource) -> Change | None:
            before = training_run(resource.document)
            if before.over:
                raise validation_error(
                    f"The request was rejected because the training job is in status {before.status.value}."
                )
            after, _ = step(before, StopRequested(), at)
            if after is before:
                return None
            return Change(after.status.value, training_document(resource.document, after))

        resource = self._engine.update(call, TRAINING_JOB, request["TrainingJobName"], edit)
        self._notify(resource.arn)

    @operation("UpdateTrainingJob")
    def update_training_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change what may be changed of a job that runs."""

        def edit(resource: Resource) -> Change:
            if request.get("ResourceConfig"):
                raise validation_error(
                    "KeepAlivePeriodInSeconds can only be changed while a warm pool of the job is available, "
                    "and it has none."
                )
            if resource.status != Status.IN_PROGRESS:
                raise validation_error(
                    f"The request was rejected because the training job is in status {resource.status}."
                )
            document = dict(resource.document)
            for member in _UPDATABLE:
                if member not in request:
                    continue
                old, new = document.get(member), request[member]
                document[member] = {**(old or {}), **new} if isinstance(new, Mapping) else new
            return Change(document=document)

        resource = self._engine.update(call, TRAINING_JOB, request["TrainingJobName"], edit)
        return {"TrainingJobArn": resource.arn}

    @operation("DeleteTrainingJob")
    def delete_training_job(self, call: Call, request: Mapping[str, Any]) -> None:
        """Forget a job that has ended; its name may be used again."""
        name = request["TrainingJobName"]
        try:
            found = self._engine.find(call, TRAINING_JOB, name)
        except AwsError as error:
            raise AwsError("ResourceNotFound", error.message) from None
        if found.status not in TERMINAL:
            raise resource_in_use(
                f"The training job {name} is in status {found.status}. Stop it, and delete it once it has ended."
            )
        self._engine.delete(call, TRAINING_JOB, request)
