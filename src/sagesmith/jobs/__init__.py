"""Drivers of jobs: they take a job's row, start its instances, and carry it to its end."""

from sagesmith.jobs.training import TrainingJobs
from sagesmith.jobs.transform import TransformJobs

__all__ = ["TrainingJobs", "TransformJobs"]
