"""The driver of training jobs."""

from __future__ import annotations

from sagesmith.jobs._driver import Driver
from sagesmith.jobs._training_job import TrainingJob
from sagesmith.jobs._training_spec import LOG_GROUP

__all__ = ["TrainingJobs"]


class TrainingJobs(Driver):
    """Drives every unfinished training job."""

    job = TrainingJob
    log_group = LOG_GROUP
