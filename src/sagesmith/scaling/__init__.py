"""The driver of scaling: does what alarms, schedules and new limits ask of scalable targets."""

from sagesmith.scaling._scaler import Capacity, Scaler

__all__ = ["Capacity", "Scaler"]
