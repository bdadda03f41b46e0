"""What can be said of every estimator, besides its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from sagesmith.sdk._session import Session

__all__ = ["EstimatorSettings"]


class EstimatorSettings(TypedDict, total=False):
    """The settings of an estimator; none is required.

    Keys:
        session: where to train; else the session that the environment tells.
        role: execution role; else the session's.
        instance_type: ``ml.m5.xlarge`` unless said.
        instance_count: 1 unless said.
        volume_size_gb: disk of an instance, 30 unless said.
        max_run_s: seconds until the job is stopped, a day unless said.
        output: S3 URI below which models are put; else the session's bucket.
        version: of the algorithm or the framework.
        environment: environment variables of the container.
        tags: of jobs, models and endpoints.
        metric_definitions: name to regular expression, for metrics in the log of your own code.
        name: what names of jobs and endpoints begin with.
        hyperparameters: further ones, for names that are no Python names or settings.
        request: members of `CreateTrainingJob` merged over what is sent, for all that has no argument here.
    """

    session: Session | None
    role: str | None
    instance_type: str
    instance_count: int
    volume_size_gb: int
    max_run_s: int
    output: str | None
    version: str | None
    environment: Mapping[str, str]
    tags: Mapping[str, str]
    metric_definitions: Mapping[str, str]
    name: str | None
    hyperparameters: Mapping[str, Any]
    request: Mapping[str, Any]
