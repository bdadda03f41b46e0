"""GetMetricData: several metrics and expressions over them, in pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.cloudwatch._expressions import TimeSeries, evaluate, names_in
from sagesmith.services.cloudwatch._periods import (
    begin_of,
    check_period,
    check_statistic,
    dimensions_of,
    invalid_value,
)
from sagesmith.store.metrics import Metrics
from sagesmith.store.queries import decode_token, encode_token, fingerprint

__all__ = ["MetricData"]

_MOST_QUERIES: Final = 500
_MOST_POINTS: Final = 100_800


class MetricData:
    """GetMetricData."""

    service = "cloudwatch"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @operation("GetMetricData")
    def get_metric_data(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of every query that wants its data returned.

        A page holds at most `MaxDatapoints` values; its token says from which value of which result to go on.
        """
        queries: Sequence[Mapping[str, Any]] = request["MetricDataQueries"]
        _check(queries, request)
        found = self._evaluated(call, request, queries)
        newest_first = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        room = min(request.get("MaxDatapoints", _MOST_POINTS), _MOST_POINTS)
        asked = fingerprint(*(request.get(member) for member in ("StartTime", "EndTime", "ScanBy")), queries)
        result, place = _read_token(request.get("NextToken"), asked)
        wanted = [query for query in queries if query.get("ReturnData", True)]
        answer: dict[str, Any] = {"MetricDataResults": [], "Messages": []}
        for number, query in enumerate(wanted[result:], start=result):
            values = sorted(found[query["Id"]].items(), reverse=newest_first)
            page = values[place : place + room]
            whole = place + len(page) == len(values)
            answer["MetricDataResults"].append(
                {
                    "Id": query["Id"],
                    "Label": _label(query),
                    "Timestamps": [time for time, _ in page],
                    "Values": [value for _, value in page],
                    "StatusCode": "Complete" if whole else "PartialData",
                }
            )
            room -= len(page)
            if not whole:
                answer["NextToken"] = encode_token([number, place + len(page)], asked)
                break
            place = 0
            if room == 0 and number + 1 < len(wanted):
                answer["NextToken"] = encode_token([number + 1, 0], asked)
                break
        return answer

    def _evaluated(
        self, call: Call, request: Mapping[str, Any], queries: Sequence[Mapping[str, Any]]
    ) -> dict[str, TimeSeries]:
        """Return the series of every query by id: metrics first, then expressions as their inputs are there."""
        found = {q["Id"]: self._series(call, request, q["MetricStat"]) for q in queries if "MetricStat" in q}
        metrics = list(found)
        waiting = {query["Id"]: str(query["Expression"]) for query in queries if "Expression" in query}
        while waiting:
            ready = [name for name in waiting if not names_in(waiting[name]) & waiting.keys()]
            if not ready:
                raise invalid_value(f"The expressions {', '.join(sorted(waiting))} need one another.")
            found.update({name: evaluate(waiting.pop(name), found, metrics) for name in ready})
        return found

    def _series(self, call: Call, request: Mapping[str, Any], stat: Mapping[str, Any]) -> TimeSeries:
        metric, period = stat["Metric"], stat["Period"]
        points = self._metrics.statistics(
            metric.get("Namespace", ""), metric.get("MetricName", ""), dimensions_of(metric.get("Dimensions", ())),
            region=call.region, start=begin_of(request["StartTime"], period), end=request["EndTime"],
            period=period, unit=stat.get("Unit", ""),
        )  # fmt: skip
        values = {point.time: point.summary.value(stat["Stat"]) for point in points}
        return {time: value for time, value in values.items() if value is not None}


def _check(queries: Sequence[Mapping[str, Any]], request: Mapping[str, Any]) -> None:
    if len(queries) > _MOST_QUERIES:
        raise invalid_value(
            f"MetricDataQueries may hold at most {_MOST_QUERIES} queries, not {len(queries)}."
        )
    if request["StartTime"] >= request["EndTime"]:
        raise invalid_value("The parameter StartTime must be less than the parameter EndTime.")
    ids = [query["Id"] for query in queries]
    if len(set(ids)) < len(ids):
        raise invalid_value("The ids of MetricDataQueries must differ from one another.")
    for query in queries:
        name = query["Id"]
        if not (name.isascii() and name.isidentifier() and name[0].islower()):
            raise invalid_value(
                f"The id {name!r} must begin with a lower case letter and hold letters, digits and underscores."
            )
        if ("MetricStat" in query) == ("Expression" in query):
            raise invalid_value(f"The query {name!r} needs either a MetricStat or an Expression.")
        if "MetricStat" in query:
            stat = query["MetricStat"]
            check_period(stat["Period"])
            check_statistic(stat["Stat"])
            length = request["EndTime"] - request["StartTime"]
            if math.ceil(length / stat["Period"]) > _MOST_POINTS:
                raise invalid_value(f"The query {name!r} asks for more than {_MOST_POINTS:,} datapoints.")


def _label(query: Mapping[str, Any]) -> str:
    if query.get("Label"):
        return str(query["Label"])
    if "Expression" in query:
        return str(query["Id"])
    return str(query["MetricStat"]["Metric"].get("MetricName", query["Id"]))


def _read_token(token: str | None, asked: str) -> tuple[int, int]:
    if not token:
        return 0, 0
    try:
        result, place = decode_token(token, asked, 2)
        if isinstance(result, int) and isinstance(place, int) and min(result, place) >= 0:
            return result, place
    except AwsError:
        pass
    raise AwsError("InvalidNextToken", "The NextToken is not one that a request like this one returned.")
