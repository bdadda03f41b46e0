"""Resource families as data: what the engine must know of each beyond botocore's model.

The operations are named after the noun (`CreateModel`, `DescribeModel`, `ListModels`, ...), the members after
it too (`ModelName`, `ModelArn`). What the documentation says in prose only (how a list is sorted unless told
otherwise, the words of errors) is written down here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

__all__ = [
    "CODE_REPOSITORY",
    "ENDPOINT",
    "ENDPOINT_CONFIG",
    "INFERENCE_COMPONENT",
    "KINDS",
    "MODEL",
    "NOTEBOOK_INSTANCE",
    "NOTEBOOK_LIFECYCLE_CONFIG",
    "RECORD_ONLY",
    "TRAINING_JOB",
    "TRANSFORM_JOB",
    "ResourceKind",
]

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """One family of resources.

    Args:
        noun: as in ``Create{noun}``.
        arn: what stands before the name in its ARNs; also the kind's name in the store.
        title: as error messages call it.
        plural: as in ``List{plural}``; the noun and an s unless given.
        status: the member of Describe that holds the status; "" if it has none.
        first_status: the status of a new resource.
        sort_by: how its list is sorted unless the request says so: Name, CreationTime, ...
        descending: in which direction.
        equals: filters of its list for equality: request member to document member.
        contains: filters of its list for a part of a text: request member to document member.
        has: filters of its list for an element of a list of texts: request member to document member.
        parent: where the document says what the resource belongs to, as members with dots; "" if to nothing.
        parent_filter: the filter of its list for the parent.
        updatable: whether there is an Update operation.
        merged: members that an update changes inside, instead of as a whole.
        created_by: whether Describe tells `CreatedBy` and `LastModifiedBy`.
        taken: code and message when the name is taken; may say {arn} and {name}.
        absent: code and message when there is none of that name.
    """

    noun: str
    arn: str
    title: str
    plural: str = ""
    status: str = ""
    first_status: str = ""
    sort_by: str = "CreationTime"
    descending: bool = True
    equals: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    contains: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    has: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    parent: str = ""
    parent_filter: str = ""
    updatable: bool = True
    merged: tuple[str, ...] = ()
    created_by: bool = False
    taken: tuple[str, str] = ("", "")
    absent: tuple[str, str] = ("", "")

    @property
    def name_member(self) -> str:
        """The member that holds the name."""
        return f"{self.noun}Name"

    @property
    def arn_member(self) -> str:
        """The member that holds the ARN."""
        return f"{self.noun}Arn"

    @property
    def list_operation(self) -> str:
        """The operation that lists it."""
        return f"List{self.plural or self.noun + 's'}"


def _stored(noun: str, arn: str, title: str, **more: object) -> ResourceKind:
    """Return a kind with the error words of those older families that do not declare their errors."""
    return ResourceKind(
        noun,
        arn,
        title,
        taken=("ValidationException", f'Cannot create already existing {title} "{{arn}}".'),
        absent=("ValidationException", f'Could not find {title} "{{arn}}".'),
        **more,  # type: ignore[arg-type]
    )


def _modelled(noun: str, arn: str, title: str, **more: object) -> ResourceKind:
    """Return a kind with the errors that newer families declare: ResourceInUse and ResourceNotFound."""
    return ResourceKind(
        noun,
        arn,
        title,
        taken=("ResourceInUse", f"{title.capitalize()} {{name}} already exists ({{arn}})."),
        absent=("ResourceNotFound", f"{title.capitalize()} {{name}} does not exist ({{arn}})."),
        **more,  # type: ignore[arg-type]
    )


TRAINING_JOB: Final = ResourceKind(
    "TrainingJob",
    "training-job",
    "training job",
    status="TrainingJobStatus",
    descending=False,
    equals={"WarmPoolStatusEquals": "WarmPoolStatus", "TrainingPlanArnEquals": "TrainingPlanArn"},
    taken=(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, "
        "and a training job with this name already exists ({arn})",
    ),
    absent=("ValidationException", "Requested resource not found."),
)
TRANSFORM_JOB: Final = ResourceKind(
    "TransformJob",
    "transform-job",
    "transform job",
    status="TransformJobStatus",
    taken=(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, "
        "and a transform job with this name already exists ({arn})",
    ),
    absent=("ValidationException", "Could not find requested job with name: {name}"),
)
MODEL: Final = _stored("Model", "model", "model")
ENDPOINT_CONFIG: Final = _stored("EndpointConfig", "endpoint-config", "endpoint configuration")
ENDPOINT: Final = _stored("Endpoint", "endpoint", "endpoint", status="EndpointStatus")
INFERENCE_COMPONENT: Final = _stored(
    "InferenceComponent",
    "inference-component",
    "inference component",
    status="InferenceComponentStatus",
    parent="EndpointName",
    parent_filter="EndpointNameEquals",
    equals={"VariantNameEquals": "VariantName"},
)
NOTEBOOK_INSTANCE: Final = ResourceKind(
    "NotebookInstance",
    "notebook-instance",
    "notebook instance",
    status="NotebookInstanceStatus",
    sort_by="Name",
    descending=False,
    contains={
        "NotebookInstanceLifecycleConfigNameContains": "NotebookInstanceLifecycleConfigName",
        "DefaultCodeRepositoryContains": "DefaultCodeRepository",
    },
    has={"AdditionalCodeRepositoryEquals": "AdditionalCodeRepositories"},
    taken=("ValidationException", "Cannot create a duplicate Notebook Instance ({arn})"),
    absent=("ValidationException", "RecordNotFound"),
)
NOTEBOOK_LIFECYCLE_CONFIG: Final = _stored(
    "NotebookInstanceLifecycleConfig",
    "notebook-instance-lifecycle-config",
    "notebook instance lifecycle configuration",
)
CODE_REPOSITORY: Final = _stored(
    "CodeRepository",
    "code-repository",
    "code repository",
    plural="CodeRepositories",
    sort_by="Name",
    descending=False,
    merged=("GitConfig",),
)

RECORD_ONLY: Final[tuple[ResourceKind, ...]] = (
    _stored(
        "ModelPackageGroup",
        "model-package-group",
        "model package group",
        status="ModelPackageGroupStatus",
        first_status="Completed",
        descending=False,
        updatable=False,
        created_by=True,
    ),
    _modelled(
        "StudioLifecycleConfig",
        "studio-lifecycle-config",
        "studio lifecycle configuration",
        equals={"AppTypeEquals": "StudioLifecycleConfigAppType"},
        updatable=False,
    ),
    _modelled("AppImageConfig", "app-image-config", "app image configuration"),
    _modelled("Experiment", "experiment", "experiment", created_by=True),
    _modelled(
        "Context",
        "context",
        "context",
        equals={"ContextType": "ContextType"},
        parent="Source.SourceUri",
        parent_filter="SourceUri",
        created_by=True,
    ),
    _modelled(
        "Action",
        "action",
        "action",
        equals={"ActionType": "ActionType"},
        parent="Source.SourceUri",
        parent_filter="SourceUri",
        created_by=True,
    ),
)
"""Families that SageMaker itself only stores."""

KINDS: Final[Mapping[str, ResourceKind]] = {
    kind.arn: kind
    for kind in (
        TRAINING_JOB,
        TRANSFORM_JOB,
        MODEL,
        ENDPOINT_CONFIG,
        ENDPOINT,
        INFERENCE_COMPONENT,
        NOTEBOOK_INSTANCE,
        NOTEBOOK_LIFECYCLE_CONFIG,
        CODE_REPOSITORY,
        *RECORD_ONLY,
    )
}
"""Every family, by what its ARNs begin with."""
