"""CloudWatch metrics: put, statistics, data with expressions, list. Alarms are not here yet."""

from __future__ import annotations

from sagesmith.services.cloudwatch._metric_data import MetricData
from sagesmith.services.cloudwatch._metrics import MetricStatistics
from sagesmith.store.metrics import Metrics

__all__ = ["MetricData", "MetricStatistics", "handlers"]


def handlers(metrics: Metrics) -> list[object]:
    """Return the handlers of every operation."""
    return [MetricStatistics(metrics), MetricData(metrics)]
