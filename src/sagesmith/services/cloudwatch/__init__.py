"""CloudWatch metrics: put, statistics, data with expressions, list. Alarms are not here yet."""

from sagesmith.services.cloudwatch._metric_data import MetricData
from sagesmith.services.cloudwatch._metrics import MetricStatistics

__all__ = ["MetricData", "MetricStatistics"]
