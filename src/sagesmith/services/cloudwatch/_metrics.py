"""Putting metric data, and reading the statistics of one metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.cloudwatch._periods import (
    begin_of,
    check_period,
    check_statistic,
    dimensions_of,
    invalid_combination,
    invalid_value,
)
from sagesmith.store.metrics import Datum, Metrics, Point, Summary

__all__ = ["MetricStatistics"]

_MOST_DATA: Final = 1000
_MOST_POINTS: Final = 1440
_PAST_S: Final = 14 * 86_400
_FUTURE_S: Final = 2 * 3600


class MetricStatistics:
    """PutMetricData, GetMetricStatistics and ListMetrics."""

    service = "cloudwatch"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @operation("PutMetricData")
    def put_metric_data(self, call: Call, request: Mapping[str, Any]) -> None:
        """Add values, arrays of values with counts, or statistic sets."""
        namespace = request["Namespace"]
        items = list(request.get("MetricData", ()))
        for group in request.get("EntityMetricData", ()):
            items.extend(group.get("MetricData", ()))
        if not items:
            raise AwsError("MissingRequiredParameterException", "The parameter MetricData is required.")
        if len(items) > _MOST_DATA:
            raise invalid_value(f"The collection MetricData must not have a size greater than {_MOST_DATA}.")
        try:
            self._metrics.put(namespace, [_datum(call, item) for item in items], region=call.region)
        except ValueError as error:
            raise invalid_value(f"The MetricData makes no sense: {error}") from error

    @operation("GetMetricStatistics")
    def get_metric_statistics(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return statistics of one metric, period by period."""
        statistics = list(request.get("Statistics", ()))
        extended = list(request.get("ExtendedStatistics", ()))
        if not statistics and not extended:
            raise invalid_combination("At least one of Statistics and ExtendedStatistics must be given.")
        period = request["Period"]
        start, end = request["StartTime"], request["EndTime"]
        check_period(period)
        for name in (*statistics, *extended):
            check_statistic(name)
        if start >= end:
            raise invalid_value("The parameter StartTime must be less than the parameter EndTime.")
        begin = begin_of(start, period)
        asked = math.ceil((end - begin) / period)
        if asked > _MOST_POINTS:
            raise invalid_combination(
                f"You have requested up to {asked:,} datapoints, which exceeds the limit of {_MOST_POINTS:,}. "
                "You may reduce the datapoints requested by increasing Period, or decreasing the time range."
            )
        metric = request["Namespace"], request["MetricName"], dimensions_of(request.get("Dimensions", ()))
        points = self._metrics.statistics(
            *metric, region=call.region, start=begin, end=end, period=period, unit=request.get("Unit", "")
        )
        unit = self._metrics.unit(*metric, region=call.region) if points else "None"
        return {
            "Label": request["MetricName"],
            "Datapoints": [_datapoint(point, statistics, extended, unit) for point in points],
        }

    @operation("ListMetrics")
    def list_metrics(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the metrics that have data."""
        try:
            page = self._metrics.list(
                region=call.region, namespace=request.get("Namespace", ""), name=request.get("MetricName", ""),
                dimensions=[(item["Name"], item.get("Value")) for item in request.get("Dimensions", ())],
                recent=request.get("RecentlyActive") == "PT3H", token=request.get("NextToken"),
            )  # fmt: skip
        except AwsError as error:
            raise invalid_value(error.message) from error
        answer: dict[str, Any] = {
            "Metrics": [
                {
                    "Namespace": series.namespace,
                    "MetricName": series.name,
                    "Dimensions": [
                        {"Name": name, "Value": value} for name, value in series.dimensions.items()
                    ],
                }
                for series in page.items
            ]
        }
        if page.next_token is not None:
            answer["NextToken"] = page.next_token
        return answer


def _datum(call: Call, item: Mapping[str, Any]) -> Datum:
    timestamp = item.get("Timestamp", call.time)
    if not call.time - _PAST_S <= timestamp <= call.time + _FUTURE_S:
        raise invalid_value(
            f"The timestamp of metric {item['MetricName']!r} must be at most two weeks in the past "
            "and two hours in the future."
        )
    given = item.get("StatisticValues")
    statistics = None
    if given is not None:
        statistics = Summary(given["SampleCount"], given["Sum"], given["Minimum"], given["Maximum"])
    return Datum(
        item["MetricName"], dimensions_of(item.get("Dimensions", ())), timestamp, item.get("Value"),
        item.get("Unit", "None"), item.get("Values", ()), item.get("Counts", ()), statistics,
    )  # fmt: skip


def _datapoint(point: Point, statistics: list[str], extended: list[str], unit: str) -> dict[str, Any]:
    datapoint: dict[str, Any] = {"Timestamp": point.time, "Unit": unit}
    datapoint.update({name: point.summary.value(name) for name in statistics})
    percentiles = {name: point.summary.value(name) for name in extended}
    known = {name: value for name, value in percentiles.items() if value is not None}
    if known:
        datapoint["ExtendedStatistics"] = known
    return datapoint
