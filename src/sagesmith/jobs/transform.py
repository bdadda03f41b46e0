"""The driver of transform jobs."""

from __future__ import annotations

from sagesmith.jobs._driver import Driver
from sagesmith.jobs._transform_job import TransformJob
from sagesmith.jobs._transform_spec import LOG_GROUP

__all__ = ["TransformJobs"]


class TransformJobs(Driver):
    """Drives every unfinished transform job."""

    job = TransformJob
    log_group = LOG_GROUP
