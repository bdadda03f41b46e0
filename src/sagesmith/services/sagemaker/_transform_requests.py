"""CreateTransformJob's request: what is refused before the job exists, and the document that Describe starts from."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from sagesmith.errors import AwsError, validation_error
from sagesmith.jsonpath import JsonPath, JsonPathError
from sagesmith.lifecycle.records import MODEL, transform_document
from sagesmith.lifecycle.transform import plan
from sagesmith.services.sagemaker._checks import check_s3_uri, not_available

__all__ = ["check_transform_request", "new_transform_document"]

MAX_INSTANCES: Final = 100
LARGEST_MB: Final = 100
DEFAULT_MB: Final = 6
_PROCESSED: Final = ("text/csv", "application/json", "application/jsonlines")


def check_transform_request(
    request: Mapping[str, Any], *, check_instance_type: Callable[[str], object]
) -> None:
    """Refuse what cannot work, in AWS's words.

    Raises:
        AwsError: `ValidationException` or `ResourceLimitExceeded`.
    """
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] == "AugmentedManifestFile":
        raise validation_error(
            "S3DataType AugmentedManifestFile is not supported for batch transform. Use S3Prefix or ManifestFile."
        )
    if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise not_available(f"TransformInput.DataSource.S3DataSource.S3DataType {source['S3DataType']}")
    check_s3_uri(source["S3Uri"], "transformInput.dataSource.s3DataSource.s3Uri")
    check_s3_uri(request["TransformOutput"]["S3OutputPath"], "transformOutput.s3OutputPath")
    if request.get("DataCaptureConfig"):
        check_s3_uri(request["DataCaptureConfig"]["DestinationS3Uri"], "dataCaptureConfig.destinationS3Uri")
    _check_sizes(request)
    _check_processing(request)
    _check_resources(request["TransformResources"], check_instance_type)


def _check_sizes(request: Mapping[str, Any]) -> None:
    payload, at_once = request.get("MaxPayloadInMB"), request.get("MaxConcurrentTransforms") or 0
    if payload is not None and payload > LARGEST_MB:
        raise validation_error(
            f"MaxPayloadInMB cannot be greater than {LARGEST_MB} MB, but is {payload}. Set SplitType, so that larger "
            "objects are sent in parts."
        )
    together = at_once * (DEFAULT_MB if payload is None else payload)
    if together > LARGEST_MB or at_once > LARGEST_MB:
        raise validation_error(
            f"MaxConcurrentTransforms * MaxPayloadInMB cannot be greater than {LARGEST_MB} MB, but is "
            f"{at_once} * {DEFAULT_MB if payload is None else payload}. Decrease one of them."
        )


def _check_processing(request: Mapping[str, Any]) -> None:
    processing = request.get("DataProcessing") or {}
    paths = {}
    for member in ("InputFilter", "OutputFilter"):
        try:
            paths[member] = JsonPath(processing.get(member) or "$")
        except JsonPathError as error:
            raise validation_error(
                f"Invalid value at 'dataProcessing.{member[0].lower()}{member[1:]}': {error}."
            ) from None
    joins = processing.get("JoinSource") == "Input"
    if not joins and paths["InputFilter"].is_root:
        return
    content_type = request["TransformInput"].get("ContentType", "")
    if content_type.partition(";")[0].strip().lower() not in _PROCESSED:
        raise validation_error(
            "DataProcessing needs a TransformInput.ContentType of "
            f"{', '.join(_PROCESSED)}, not {content_type or 'none'}."
        )
    split_type = request["TransformInput"].get("SplitType", "None")
    if split_type not in ("None", "Line"):
        raise validation_error(f"DataProcessing needs a SplitType of None or Line, not {split_type}.")


def _check_resources(resources: Mapping[str, Any], check_instance_type: Callable[[str], object]) -> None:
    instance_type, count = resources["InstanceType"], resources["InstanceCount"]
    check_instance_type(instance_type)
    if count > MAX_INSTANCES:
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit '{instance_type} for transform job usage' is {MAX_INSTANCES} "
            f"Instances, with a request delta of {count} Instances.",
        )


def new_transform_document(
    request: Mapping[str, Any], details: Mapping[str, Any], arn: str, now: float
) -> dict[str, Any]:
    """Return the document of a new job: the request with the defaults that Describe shows, and its first state."""
    document: dict[str, Any] = {
        **{member: value for member, value in request.items() if member != "Tags"},
        "TransformJobArn": arn,
        "TransformInput": {"CompressionType": "None", "SplitType": "None", **request["TransformInput"]},
        "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **request["TransformOutput"]},
        "DataProcessing": {
            "InputFilter": "$",
            "OutputFilter": "$",
            "JoinSource": "None",
            **(request.get("DataProcessing") or {}),
        },
        MODEL: dict(details),
    }
    count = request["TransformResources"]["InstanceCount"]
    return transform_document(document, plan(f"i-{secrets.token_hex(6)}", instance_count=count, created=now))
