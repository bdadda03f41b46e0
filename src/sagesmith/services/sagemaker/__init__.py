"""SageMaker's operations: what they mean, on rows that drivers bring to life."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from sagesmith.aws import Call, Catalog, ServiceModel
from sagesmith.clock import Clock, system_clock
from sagesmith.images import Image, resolve
from sagesmith.services.sagemaker import _engine
from sagesmith.services.sagemaker._endpoint_configs import EndpointConfigHandlers
from sagesmith.services.sagemaker._endpoints import EndpointHandlers
from sagesmith.services.sagemaker._engine import Engine
from sagesmith.services.sagemaker._inference_components import InferenceComponentHandlers
from sagesmith.services.sagemaker._kinds import RECORD_ONLY
from sagesmith.services.sagemaker._models import ModelHandlers
from sagesmith.services.sagemaker._notebook_instances import NotebookInstanceHandlers
from sagesmith.services.sagemaker._notebook_parts import (
    CodeRepositoryHandlers,
    NotebookLifecycleConfigHandlers,
)
from sagesmith.services.sagemaker._own_images import OwnImages
from sagesmith.services.sagemaker._records import record_handlers
from sagesmith.services.sagemaker._shapes import Shapes
from sagesmith.services.sagemaker._tags import Tags
from sagesmith.services.sagemaker._training_jobs import TrainingJobHandlers
from sagesmith.services.sagemaker._transform_jobs import TransformJobHandlers
from sagesmith.store.resources import Resources, Summarize

__all__ = ["OwnImages", "handlers", "summaries"]


def handlers(
    *,
    resources: Resources,
    notify_job: Callable[[str], None],
    notify_endpoint: Callable[[str], None],
    check_instance_type: Callable[[str], object],
    has_object: Callable[[str, str], bool],
    default_role_arn: str,
    notify_transform_job: Callable[[str], None] = lambda arn: None,
    notify_component: Callable[[str], None] = lambda arn: None,
    notify_notebook: Callable[[str], None] = lambda arn: None,
    volume_bytes: Callable[[str], int] = lambda uid: 0,
    url: Callable[[], str] = lambda: "https://127.0.0.1:8777",
    owner: str = "",
    check_role: Callable[[str], None] = lambda role_arn: None,
    has_alarm: Callable[[str, str], bool] = lambda region, name: False,
    check_image: Callable[[Call, Image, str], None] = lambda call, image, role_arn: None,
    resolve: Callable[[str], Image] = resolve,
    clock: Clock = system_clock,
    model: Callable[[], ServiceModel] | None = None,
) -> list[object]:
    """Return the handlers of every SageMaker operation that has behaviour.

    Args:
        notify_job: tells the driver of training jobs to look at a row, by ARN; thread-safe.
        notify_endpoint: the same for endpoints.
        check_instance_type: raises `AwsError` if the fleet does not know the instance type.
        has_object: whether a bucket has an object of that key, or below it if it ends with a slash.
        default_role_arn: the execution role of models that name none.
        notify_transform_job: the same for transform jobs.
        notify_component: the same for inference components.
        notify_notebook: the same for notebook instances.
        volume_bytes: returns how much lies in the volume of a notebook instance, by its uid.
        url: returns where this server answers.
        owner: the name under which this server's drivers claim; "" leaves what is new to whoever comes first.
        check_role: raises `AwsError` if a role cannot be used as execution role.
        has_alarm: whether a region has a CloudWatch alarm of that name.
        check_image: raises `AwsError` if an image cannot be run with a role, by ARN.
        resolve: what an image URI means.
        model: SageMaker's service model; called when first needed.
    """
    engine = Engine(resources, Shapes(model or _own_model))
    models = ModelHandlers(
        engine,
        resolve=resolve,
        has_object=has_object,
        check_role=check_role,
        check_image=check_image,
        default_role_arn=default_role_arn,
    )
    return [
        TrainingJobHandlers(
            engine,
            notify_job,
            resolve=resolve,
            check_instance_type=check_instance_type,
            check_role=check_role,
            check_image=check_image,
            clock=clock,
            owner=owner,
        ),
        TransformJobHandlers(
            engine,
            notify_transform_job,
            check_instance_type=check_instance_type,
            default_role_arn=default_role_arn,
            clock=clock,
            owner=owner,
        ),
        models,
        EndpointConfigHandlers(engine, check_instance_type=check_instance_type),
        EndpointHandlers(
            engine,
            notify_endpoint,
            default_role_arn=default_role_arn,
            has_alarm=has_alarm,
            clock=clock,
            owner=owner,
        ),
        InferenceComponentHandlers(
            engine,
            notify_component,
            check_container=models.check_container,
            has_alarm=has_alarm,
            default_role_arn=default_role_arn,
            clock=clock,
            owner=owner,
        ),
        NotebookInstanceHandlers(
            engine,
            notify_notebook,
            check_instance_type=check_instance_type,
            check_role=check_role,
            volume_bytes=volume_bytes,
            url=url,
            clock=clock,
            owner=owner,
        ),
        NotebookLifecycleConfigHandlers(engine),
        CodeRepositoryHandlers(engine),
        Tags(resources),
        *(record_handlers(engine, kind) for kind in RECORD_ONLY),
    ]


def summaries(model: Callable[[], ServiceModel] | None = None) -> Mapping[str, Summarize]:
    """Return by kind what makes the summaries that the store keeps of SageMaker's resources: for `Resources`.

    Args:
        model: SageMaker's service model; called when first needed.
    """
    return _engine.summaries(Shapes(model or _own_model))


@cache
def _own_model() -> ServiceModel:
    model = Catalog().get("sagemaker")
    if model is None:
        raise ModuleNotFoundError("botocore's model of SageMaker is not installed.")
    return model
