"""CloudWatch: metrics (put, statistics, data with expressions, list) and alarms on them."""

from __future__ import annotations

from sagesmith.services.cloudwatch._alarms import AlarmHandlers
from sagesmith.services.cloudwatch._metric_data import MetricData
from sagesmith.services.cloudwatch._metrics import MetricStatistics
from sagesmith.store.alarms import Alarms
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resources

__all__ = ["AlarmHandlers", "MetricData", "MetricStatistics", "handlers"]


def handlers(metrics: Metrics, alarms: Alarms, resources: Resources) -> list[object]:
    """Return the handlers of every operation."""
    return [MetricStatistics(metrics), MetricData(metrics), AlarmHandlers(alarms, resources)]
