"""The operations of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.errors import validation_error
from sagesmith.images import Image
from sagesmith.services.sagemaker._checks import check_unique, refuse, split_s3_uri
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import MODEL

__all__ = ["ModelHandlers"]


class ModelHandlers:
    """Models: an image, the data it serves, and the role it has.

    Args:
        has_object: whether the bucket has an object of that key, or below it if it ends with a slash.
    """

    service = "sagemaker"

    def __init__(
        self,
        engine: Engine,
        *,
        resolve: Callable[[str], Image],
        has_object: Callable[[str, str], bool],
        check_role: Callable[[str], None],
        check_image: Callable[[Call, Image, str], None],
        default_role_arn: str,
    ) -> None:
        self._engine = engine
        self._check_image = check_image
        self._default_role_arn = default_role_arn
        self._resolve = resolve
        self._has_object = has_object
        self._check_role = check_role

    @operation("CreateModel")
    def create_model(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check that image and data are there, and store the model."""
        self._engine.check_free(call, MODEL, request["ModelName"])
        primary, chain = request.get("PrimaryContainer"), request.get("Containers")
        if bool(primary) == bool(chain):
            raise validation_error(
                f"Exactly one of PrimaryContainer and Containers must be given, not {'both' if chain else 'neither'}."
            )
        containers = chain or [primary]
        check_unique(
            (c["ContainerHostname"] for c in containers if c.get("ContainerHostname")),
            "container hostname",
            "containers",
        )
        for container in containers:
            self._check_container(container)
        for container in containers:
            if container.get("Mode") == "MultiModel" and not container.get("ModelDataUrl"):
                raise validation_error(
                    "A container with Mode MultiModel needs a ModelDataUrl: the prefix below which its models lie."
                )
        mode = (request.get("InferenceExecutionConfig") or {}).get("Mode")
        if mode == "Direct" and not all(c.get("ContainerHostname") for c in containers):
            raise validation_error(
                "Every container needs a ContainerHostname if InferenceExecutionConfig.Mode is Direct: requests name it "
                "as TargetContainerHostname."
            )
        role_arn = request.get("ExecutionRoleArn") or self._default_role_arn
        for container in containers:
            self._check_image(call, self._resolve(container["Image"]), role_arn)
        if request.get("ExecutionRoleArn"):
            self._check_role(request["ExecutionRoleArn"])
        document: dict[str, Any] = {"EnableNetworkIsolation": False, **request}
        if primary:
            document["PrimaryContainer"] = _container(primary)
        else:
            document["Containers"] = [_container(container) for container in containers]
        return {"ModelArn": self._engine.create(call, MODEL, request, document).arn}

    @operation("DescribeModel", inline=True)
    def describe_model(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the model."""
        return self._engine.describe(call, MODEL, request)

    @operation("ListModels", inline=is_page)
    def list_models(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of models."""
        return self._engine.list(call, MODEL, request)

    @operation("DeleteModel")
    def delete_model(self, call: Call, request: Mapping[str, Any]) -> None:
        """Forget the model; endpoints that were made from it go on."""
        self._engine.delete(call, MODEL, request)

    def check_container(self, call: Call, container: Mapping[str, Any], role_arn: str) -> None:
        """Refuse a container whose image cannot be run with that role, or whose data is not there.

        Raises:
            AwsError: `ValidationException`.
        """
        self._check_container(container)
        self._check_image(call, self._resolve(container["Image"]), role_arn)

    def _check_container(self, container: Mapping[str, Any]) -> None:
        if container.get("ModelPackageName"):
            raise validation_error(
                f'Could not find model package "{container["ModelPackageName"]}". '
                "Name the model's Image and ModelDataUrl instead."
            )
        if not container.get("Image"):
            raise validation_error("A container must have an Image.")
        refuse(container, ("AdditionalModelDataSources",), "container")
        self._resolve(container["Image"])
        url, source = container.get("ModelDataUrl"), container.get("ModelDataSource")
        if url and source:
            raise validation_error("A container can have ModelDataUrl or ModelDataSource, not both.")
        if url:
            # Of several models, the URL is the prefix below which they lie; they may come later.
            self._check_data(url, needed=container.get("Mode") != "MultiModel")
        elif source:
            s3 = source.get("S3DataSource")
            if not s3:
                raise validation_error("ModelDataSource must have an S3DataSource.")
            refuse(s3, ("HubAccessConfig",), "ModelDataSource.S3DataSource")
            uri = s3["S3Uri"]
            is_prefix = s3["S3DataType"] == "S3Prefix"
            self._check_data(uri if not is_prefix or uri.endswith("/") else uri + "/", needed=True)

    def _check_data(self, uri: str, *, needed: bool) -> None:
        try:
            bucket, key = split_s3_uri(uri)
        except ValueError:
            raise validation_error(
                f'Invalid model data URI "{uri}". It must look like s3://bucket/path/model.tar.gz.'
            ) from None
        if needed and not self._has_object(bucket, key):
            raise validation_error(f"Could not find model data at {uri}.")


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    return {"Mode": "SingleModel", "Environment": {}, **container}
