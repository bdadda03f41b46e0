"""CloudWatch metrics, as boto3 and the SDKs use them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from sagesmith.errors import AwsError
from sagesmith.services.cloudwatch import handlers
from sagesmith.services.cloudwatch._expressions import evaluate
from sagesmith.store.alarms import Alarms
from sagesmith.store.database import Database
from sagesmith.store.metrics import Datum, Metrics
from sagesmith.store.resources import Resources
from tests.aws.conftest import Running
from tests.conftest import FakeClock
from tests.services.direct import ACCOUNT, Direct

SPACE = "/aws/sagemaker/TrainingJobs"
T0 = 1_700_000_040.0
JOB = [{"Name": "TrainingJobName", "Value": "j1"}]


@pytest.fixture
def metrics(sqlite_database: Database, clock: FakeClock) -> Metrics:
    clock.now = T0
    return Metrics(sqlite_database, clock)


@pytest.fixture
def cloudwatch(metrics: Metrics, sqlite_database: Database, clock: FakeClock) -> Direct:
    resources = Resources(sqlite_database, clock)
    return Direct(*handlers(metrics, Alarms(resources, ACCOUNT, clock), resources), clock=clock)


def put(cloudwatch: Direct, **datum: Any) -> None:
    cloudwatch(
        "PutMetricData", Namespace=SPACE, MetricData=[{"MetricName": "loss", "Dimensions": JOB, **datum}]
    )


def statistics(cloudwatch: Direct, **request: Any) -> list[dict[str, Any]]:
    given = {
        "Namespace": SPACE, "MetricName": "loss", "Dimensions": JOB, "StartTime": T0 - 33, "EndTime": T0 + 600,
        "Period": 60,
    }  # fmt: skip
    answer = cloudwatch("GetMetricStatistics", **given | request)
    assert answer["Label"] == "loss"
    datapoints: list[dict[str, Any]] = answer["Datapoints"]
    return datapoints


def test_what_is_put_is_summarised(cloudwatch: Direct, metrics: Metrics) -> None:
    put(cloudwatch, Value=1.0, Unit="Percent")
    put(cloudwatch, Values=[2.0, 3.0], Counts=[1.0, 2.0], Timestamp=T0 + 1, Unit="Percent")
    put(
        cloudwatch, StatisticValues={"SampleCount": 2, "Sum": 11, "Minimum": 5, "Maximum": 6},
        Timestamp=T0 + 61, StorageResolution=1, Unit="Percent",
    )  # fmt: skip
    every = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"]
    assert statistics(cloudwatch, Statistics=every, ExtendedStatistics=["p100"]) == [
        {
            "Timestamp": T0, "Unit": "Percent", "SampleCount": 4.0, "Average": 2.25, "Sum": 9.0, "Minimum": 1.0,
            "Maximum": 3.0, "ExtendedStatistics": {"p100": 3.0},
        },
        {
            "Timestamp": T0 + 60, "Unit": "Percent", "SampleCount": 2.0, "Average": 5.5, "Sum": 11.0,
            "Minimum": 5.0, "Maximum": 6.0,
        },
    ]  # fmt: skip
    assert statistics(cloudwatch, Statistics=["Sum"], Unit="Bytes") == []
    assert statistics(cloudwatch, Statistics=["Sum"], Dimensions=[]) == []


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({}, "InvalidParameterCombinationException", "At least one of Statistics"),
        ({"Statistics": ["Sum"], "Period": 61}, "InvalidParameterValueException", "Period is 61"),
        ({"Statistics": ["Sum"], "EndTime": T0 - 33}, "InvalidParameterValueException", "must be less than"),
        ({"Statistics": ["Sum"], "EndTime": T0 + 90_000}, "InvalidParameterCombinationException", "up to 1,501 datapoints"),
        ({"ExtendedStatistics": ["p101"]}, "InvalidParameterValueException", "p101"),
        ({"Statistics": ["Sum"], "Dimensions": JOB * 2}, "InvalidParameterValueException", "twice"),
    ],
)  # fmt: skip
def test_statistics_without_sense(
    cloudwatch: Direct, request_: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(AwsError, match=message) as caught:
        statistics(cloudwatch, **request_)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        ({}, "either a value"),
        ({"Value": 1.0, "Timestamp": T0 - 15 * 86_400}, "two weeks in the past"),
        ({"Value": 1.0, "Timestamp": T0 + 3 * 3600}, "two hours in the future"),
        ({"Value": float("nan")}, "2\\^360"),
        ({"Value": 1e300}, "2\\^360"),
        ({"Values": [1.0], "Counts": [1.0, 2.0]}, "1 values but 2 counts"),
    ],
)
def test_data_without_sense(cloudwatch: Direct, datum: dict[str, Any], message: str) -> None:
    with pytest.raises(AwsError, match=message) as caught:
        put(cloudwatch, **datum)
    assert caught.value.code == "InvalidParameterValueException"


def test_metrics_are_listed(cloudwatch: Direct) -> None:
    put(cloudwatch, Value=1.0)
    put(cloudwatch, Value=1.0, Timestamp=T0 - 4 * 3600, Dimensions=[{"Name": "Host", "Value": "algo-1"}])
    found = cloudwatch("ListMetrics", Dimensions=[{"Name": "TrainingJobName"}])
    assert found == {"Metrics": [{"Namespace": SPACE, "MetricName": "loss", "Dimensions": JOB}]}
    assert len(cloudwatch("ListMetrics", Namespace=SPACE)["Metrics"]) == 2
    assert len(cloudwatch("ListMetrics", RecentlyActive="PT3H")["Metrics"]) == 1
    with pytest.raises(AwsError, match="Invalid NextToken"):
        cloudwatch("ListMetrics", NextToken="x")


def a_query(name: str, stat: str = "Average", **more: Any) -> dict[str, Any]:
    metric = {"Namespace": SPACE, "MetricName": "loss", "Dimensions": JOB}
    return {"Id": name, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, **more}


def data(cloudwatch: Direct, *queries: dict[str, Any], **more: Any) -> Any:
    request = {"MetricDataQueries": list(queries), "StartTime": T0, "EndTime": T0 + 600, **more}
    return cloudwatch("GetMetricData", **request)


def test_metric_data_with_expressions(cloudwatch: Direct) -> None:
    for number in range(3):
        put(cloudwatch, Values=[float(number), number + 1.0], Timestamp=T0 + 60 * number)
    answer = data(
        cloudwatch, {"Id": "e2", "Expression": "e1 / 2", "Label": "half"}, a_query("m1", ReturnData=False),
        {"Id": "e1", "Expression": "m1 * 100"}, a_query("m2", "p100"), a_query("none", Label="x"),
        ScanBy="TimestampAscending",
    )  # fmt: skip
    results = {result["Id"]: result for result in answer["MetricDataResults"]}
    assert list(results) == ["e2", "e1", "m2", "none"]
    assert results["e1"]["Values"] == [50.0, 150.0, 250.0]
    assert results["e2"]["Values"] == [25.0, 75.0, 125.0]
    assert results["e2"]["Timestamps"] == [T0, T0 + 60, T0 + 120]
    assert (results["e2"]["Label"], results["m2"]["Label"], results["none"]["Label"]) == ("half", "loss", "x")
    assert results["m2"]["Values"] == [1.0, 2.0, 3.0]
    assert results["none"]["Values"] == [0.5, 1.5, 2.5]
    newest = data(cloudwatch, a_query("m1"))["MetricDataResults"][0]
    assert newest["Values"] == [2.5, 1.5, 0.5]
    assert newest["StatusCode"] == "Complete"


@pytest.mark.parametrize("room", [1, 2, 3, 4, 5, 7])
def test_metric_data_comes_in_pages(cloudwatch: Direct, room: int) -> None:
    for number in range(5):
        put(cloudwatch, Value=float(number), Timestamp=T0 + 60 * number)
    queries = [a_query("a"), a_query("b", "Sum"), a_query("c", "Maximum")]
    whole = {result["Id"]: result["Values"] for result in data(cloudwatch, *queries)["MetricDataResults"]}
    found: dict[str, list[float]] = {}
    more: dict[str, Any] = {"MaxDatapoints": room}
    while True:
        answer = data(cloudwatch, *queries, **more)
        for result in answer["MetricDataResults"]:
            found.setdefault(result["Id"], []).extend(result["Values"])
        if "NextToken" not in answer:
            break
        more["NextToken"] = answer["NextToken"]
    assert found == whole
    with pytest.raises(AwsError) as caught:
        data(cloudwatch, a_query("a"), NextToken=more.get("NextToken", "x"))
    assert caught.value.code == "InvalidNextToken"


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([a_query("a"), a_query("a")], "must differ"),
        ([a_query("A")], "lower case letter"),
        ([{"Id": "a"}], "either a MetricStat or an Expression"),
        ([a_query("a", "mean")], "'mean' is not supported"),
        ([{"Id": "a", "Expression": "b"}, {"Id": "b", "Expression": "a"}], "need one another"),
        ([{"Id": "a", "Expression": "b +"}], "cannot be read"),
        ([{"Id": "a", "Expression": "zzz + 1"}], "no query with the id 'zzz'"),
    ],
)
def test_metric_data_without_sense(cloudwatch: Direct, queries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(AwsError, match=message):
        data(cloudwatch, *queries)


M1, M2 = {0.0: 1.0, 60.0: 2.0, 120.0: 0.0}, {60.0: 4.0, 120.0: 8.0}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("m1 + m2", {60.0: 6.0, 120.0: 8.0}),
        ("m2 / m1", {60.0: 2.0}),
        ("-(m1 ^ 2) + 1", {0.0: 0.0, 60.0: -3.0, 120.0: 1.0}),
        ("SUM(METRICS())", {0.0: 1.0, 60.0: 6.0, 120.0: 8.0}),
        ("MAX([m1, m2 * 0])", {0.0: 1.0, 60.0: 2.0, 120.0: 0.0}),
        ("m1 - AVG(m1)", {0.0: 0.0, 60.0: 1.0, 120.0: -1.0}),
        ("FILL(m2, 0)", {0.0: 0.0, 60.0: 4.0, 120.0: 8.0}),
        ("ABS(m2 * -1.0)", {60.0: 4.0, 120.0: 8.0}),
        ("1 + 1", {0.0: 2.0, 60.0: 2.0, 120.0: 2.0}),
    ],
)
def test_expressions(expression: str, expected: dict[float, float]) -> None:
    assert evaluate(expression, {"m1": M1, "m2": M2}, ["m1", "m2"]) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "SEARCH('x')",
        "m1 ** 9",
        "m1.real",
        "METRICS()",
        "1 / 0",
        "-" * 2000 + "1",
        "(" * 500 + ")" * 500,
        "9" * 400,
        "m1 if m1 else m2",
        "__import__('os')",
        "[1]",
        "\x00",
    ],
)
def test_expressions_that_are_not_understood(expression: str) -> None:
    with pytest.raises(AwsError, match="Error in expression") as caught:
        evaluate(expression, {"m1": M1, "m2": M2}, ["m1", "m2"])
    assert caught.value.code == "ValidationError"


def test_a_driver_puts_with_a_datum(metrics: Metrics, cloudwatch: Direct) -> None:
    metrics.put(SPACE, [Datum("loss", {"TrainingJobName": "j1"}, T0, 0.25)], region="us-east-1")
    (point,) = statistics(cloudwatch, Statistics=["Average"])
    assert point["Average"] == 0.25


def test_boto3_over_the_wire(sqlite_database: Database) -> None:
    resources = Resources(sqlite_database)
    server = Running(handlers(Metrics(sqlite_database), Alarms(resources, ACCOUNT), resources))
    try:
        client = server.client("cloudwatch")
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        datum = {
            "MetricName": "loss",
            "Dimensions": JOB,
            "Timestamp": now,
            "Values": [0.5, 1.5],
            "Unit": "Count",
        }
        client.put_metric_data(Namespace=SPACE, MetricData=[datum])
        asked = {
            "StartTime": now - datetime.timedelta(minutes=5),
            "EndTime": now + datetime.timedelta(minutes=5),
        }
        (point,) = client.get_metric_statistics(
            Namespace=SPACE, MetricName="loss", Dimensions=JOB, Period=3600, Statistics=["Average"],
            ExtendedStatistics=["p50"], **asked,
        )["Datapoints"]  # fmt: skip
        assert (point["Average"], point["Unit"]) == (1.0, "Count")
        assert point["ExtendedStatistics"]["p50"] == pytest.approx(0.5, rel=0.01)
        pages = client.get_paginator("get_metric_data").paginate(MetricDataQueries=[a_query("m1")], **asked)
        assert [result["Values"] for page in pages for result in page["MetricDataResults"]] == [[1.0]]
        assert client.list_metrics(Namespace=SPACE)["Metrics"][0]["Dimensions"] == JOB
        with pytest.raises(client.exceptions.InvalidParameterValueException) as caught:
            client.put_metric_data(Namespace=SPACE, MetricData=[{"MetricName": "x"}])
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
    finally:
        server.close()
