"""The driver of alarms: looks at each alarm's metric when a period is over, and tells who acts on alarms."""

from sagesmith.alarms._watch import AlarmWatch

__all__ = ["AlarmWatch"]
