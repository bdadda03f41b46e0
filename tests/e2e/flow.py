"""The main job in plain boto3, as small steps that the end-to-end tests put together."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from botocore.exceptions import WaiterError

from tests.e2e.served import Served

__all__ = ["Flow", "csv_bytes", "xgboost_image"]

Floats = npt.NDArray[np.floating[Any]]


def csv_bytes(*columns: npt.NDArray[Any]) -> bytes:
    """Return the columns side by side as CSV without a header; numbers keep all their digits."""
    table = np.column_stack(columns)
    return "\n".join(",".join(map(repr, row)) for row in table.tolist()).encode() + b"\n"


def xgboost_image(version: str = "1.7-1", region: str = "us-east-1") -> str:
    """Return the URI that `sagemaker.image_uris.retrieve("xgboost", ...)` gives."""
    return f"683313688378.dkr.ecr.{region}.amazonaws.com/sagemaker-xgboost:{version}"


KMEANS_IMAGE = "382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"


class Flow:
    """Clients of one server and a bucket of one's own."""

    def __init__(self, served: Served, bucket: str) -> None:
        self.served = served
        self.bucket = bucket
        self.s3 = served.client("s3")
        self.sagemaker = served.client("sagemaker")
        self.runtime = served.client("sagemaker-runtime")
        self.s3.create_bucket(Bucket=bucket)

    def upload(self, files: Mapping[str, bytes]) -> None:
        """Put each file into the bucket."""
        for key, body in files.items():
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def train(
        self,
        name: str,
        *,
        image: str,
        hyperparameters: Mapping[str, object],
        channels: Mapping[str, str],
        content_type: str = "text/csv",
        instances: int = 1,
        distribution: str = "FullyReplicated",
        wait: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        """Create a training job; *channels* maps a channel's name to its key prefix. Return its description."""
        request = {
            "TrainingJobName": name,
            "RoleArn": self.served.role,
            "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
            "HyperParameters": {key: str(value) for key, value in hyperparameters.items()},
            "InputDataConfig": [
                {
                    "ChannelName": channel,
                    "ContentType": content_type,
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": f"s3://{self.bucket}/{prefix}",
                            "S3DataDistributionType": distribution,
                        }
                    },
                }
                for channel, prefix in channels.items()
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/output"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.xlarge",
                "InstanceCount": instances,
                "VolumeSizeInGB": 10,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            **more,
        }
        self.sagemaker.create_training_job(**request)
        return self.wait_for_job(name) if wait else self.describe(name)

    def describe(self, name: str) -> dict[str, Any]:
        """Describe a training job."""
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def wait_for_job(self, name: str, *, timeout_s: float = 240) -> dict[str, Any]:
        """Wait for a training job's end with boto3's own waiter, and describe it."""
        waiter = self.sagemaker.get_waiter("training_job_completed_or_stopped")
        try:
            waiter.wait(
                TrainingJobName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": int(timeout_s / 0.2)}
            )
        except WaiterError:
            job = self.describe(name)
            assert job["TrainingJobStatus"] == "Failed", job
            return job
        return self.describe(name)

    def artifact(self, job: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the files in a job's model.tar.gz."""
        uri = job["ModelArtifacts"]["S3ModelArtifacts"]
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            files = {}
            for member in archive.getmembers():
                content = archive.extractfile(member)
                if content is not None:
                    files[member.name.removeprefix("./")] = content.read()
            return files

    def deploy(
        self, name: str, *, image: str, model_data: str, instances: int = 1, wait: bool = True
    ) -> None:
        """Create model, endpoint configuration and endpoint of one name."""
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self.served.role,
            PrimaryContainer={"Image": image, "ModelDataUrl": model_data},
        )
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": name,
                    "InitialInstanceCount": instances,
                    "InstanceType": "ml.m5.large",
                }
            ],
        )
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        if wait:
            self.wait_for_endpoint(name)

    def wait_for_endpoint(self, name: str, *, timeout_s: float = 120) -> None:
        """Wait until an endpoint is in service, with boto3's own waiter."""
        self.sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": int(timeout_s / 0.1)}
        )

    def predict(self, name: str, rows: npt.NDArray[Any], **more: Any) -> Floats:
        """Invoke an endpoint with *rows* (n_samples, n_features) as CSV; return its numbers, one row a line."""
        answer = self.runtime.invoke_endpoint(
            EndpointName=name, ContentType="text/csv", Body=csv_bytes(rows), **more
        )
        text = answer["Body"].read().decode()
        return np.array([[float(part) for part in line.split(",")] for line in text.strip().splitlines()])

    def delete(self, name: str) -> None:
        """Delete endpoint, configuration and model, and wait until the endpoint is gone."""
        self.sagemaker.delete_endpoint(EndpointName=name)
        self.sagemaker.delete_endpoint_config(EndpointConfigName=name)
        self.sagemaker.delete_model(ModelName=name)
        self.sagemaker.get_waiter("endpoint_deleted").wait(
            EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
        )

    def log_lines(self, group: str, prefix: str) -> Sequence[str]:
        """Return all lines of the streams of *group* that begin with *prefix*."""
        logs = self.served.client("logs")
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, logStreamNamePrefix=prefix
        )
        return [event["message"] for page in pages for event in page["events"]]
