"""What an endpoint does: requests, latency and errors of the last half hour, and what its instances use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sagesmith.console._pages import Context, fragment
from sagesmith.sdk import Chart, SdkError

__all__ = ["measures"]

_PERIOD_S: Final = 60
_WINDOW: Final = timedelta(minutes=30)
_SPAN: Final = (-30.0, 0.0)
_GAP: Final = 2.5
"""Minutes. An instance tells of itself once a minute, so that one may be without; more is silence, and drawn as such."""
_LEAST_S: Final = 10.0
"""How much of a minute must be over before its rate says anything: metrics come so often."""
_WANTED: Final = (
    ("requests", "AWS/SageMaker", "Invocations", "Sum"),
    ("p50", "AWS/SageMaker", "ModelLatency", "p50"),
    ("p95", "AWS/SageMaker", "ModelLatency", "p95"),
    ("p99", "AWS/SageMaker", "ModelLatency", "p99"),
    ("4xx", "AWS/SageMaker", "Invocation4XXErrors", "Sum"),
    ("5xx", "AWS/SageMaker", "Invocation5XXErrors", "Sum"),
    ("CPU", "/aws/sagemaker/Endpoints", "CPUUtilization", "Average"),
    ("memory", "/aws/sagemaker/Endpoints", "MemoryUtilization", "Average"),
)
_CHARTS: Final = (
    ("rate", "Requests per second"),
    ("latency", "Model latency, ms"),
    ("errors", "Errors per minute"),
    ("use", "Instances: percent of CPU and memory in use"),
)


def measures(context: Context, name: str, variants: list[str]) -> str:
    """Return the endpoint's totals and charts, minute by minute, as a piece of HTML."""
    trouble, measured = "", {"charts": [], "totals": {"requests": 0, "errors": 0}}
    try:
        if variants:
            measured = _measured(context, name, variants)
    except SdkError as error:
        trouble = str(error)
    return fragment("endpoint_metrics.html", trouble=trouble, **measured)


def _measured(context: Context, name: str, variants: list[str]) -> dict[str, Any]:
    queries, labels = [], {}
    for number, variant in enumerate(variants):
        for key, namespace, metric, statistic in _WANTED:
            query = f"m{number}_{key}"
            labels[query] = (variant, key)
            queries.append({
                "Id": query,
                "MetricStat": {
                    "Metric": {
                        "Namespace": namespace, "MetricName": metric,
                        "Dimensions": [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": variant}],
                    },
                    "Period": _PERIOD_S, "Stat": statistic,
                },
            })  # fmt: skip
    now = datetime.now(UTC)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {key: {} for key, _ in _CHARTS}
    totals = {"requests": 0.0, "errors": 0.0}
    results = context.call(
        "cloudwatch", "get_metric_data", MetricDataQueries=queries, StartTime=now - _WINDOW, EndTime=now,
        ScanBy="TimestampAscending",
    )["MetricDataResults"]  # fmt: skip
    for result in results:
        variant, key = labels[result["Id"]]
        points = [
            (round((moment - now).total_seconds() / 60, 2), value)
            for moment, value in zip(result["Timestamps"], result["Values"], strict=True)
        ]
        if key == "requests":
            found["rate"][variant] = [(x, y / _lasted_s(x)) for x, y in points]
            totals["requests"] += sum(y for _, y in points)
        elif key in ("4xx", "5xx"):
            found["errors"][f"{variant} {key}"] = points
            totals["errors"] += sum(y for _, y in points)
        elif key in ("CPU", "memory"):
            found["use"][f"{variant} {key}"] = points
        else:
            found["latency"][f"{variant} {key}"] = [(x, y / 1000) for x, y in points]
    return {
        "charts": [
            (
                title,
                Chart(
                    found[key],
                    title=title,
                    x_label="minutes, 0 is now",
                    x_range=_SPAN,
                    from_zero=True,
                    gap=_GAP,
                ).svg(),
            )
            for key, title in _CHARTS
            if any(found[key].values())
        ],
        "totals": totals,
    }


def _lasted_s(begin: float) -> float:
    """Return how many seconds the period that began at *begin*, in minutes, has lasted: the last is not over."""
    return min(float(_PERIOD_S), max(_LEAST_S, -begin * 60))
