"""What `Metrics` does, on both databases."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sagesmith.errors import AwsError
from sagesmith.store.database import Database
from sagesmith.store.metric_summaries import is_statistic, summary_of
from sagesmith.store.metrics import Datum, Metrics, Summary
from tests.conftest import FakeClock

SPACE, REGION = "/aws/sagemaker/TrainingJobs", "us-east-1"
JOB = {"TrainingJobName": "j1", "Host": "algo-1"}
T0 = 1_700_000_040.0  # a whole minute


@pytest.fixture
def metrics(database: Database, clock: FakeClock) -> Metrics:
    clock.now = T0
    return Metrics(database, clock)


def put(metrics: Metrics, *data: Datum, region: str = REGION) -> None:
    metrics.put(SPACE, data, region=region)


def read(
    metrics: Metrics, statistic: str, period: int = 60, unit: str = ""
) -> list[tuple[float, float | None]]:
    points = metrics.statistics(
        SPACE, "loss", JOB, region=REGION, start=T0 - 3600, end=T0 + 3600, period=period, unit=unit
    )
    return [(point.time - T0, point.summary.value(statistic)) for point in points]


def test_values_are_summarised_by_period(metrics: Metrics) -> None:
    put(metrics, *(Datum("loss", JOB, T0 + second + 0.5, second) for second in range(0, 90, 30)))
    put(metrics, Datum("loss", dict(reversed(JOB.items())), T0, 9.0), Datum("other", JOB, T0, 100.0))
    put(metrics, Datum("loss", {}, T0, 7.0))
    put(metrics, Datum("loss", JOB, T0, 8.0), region="eu-west-1")
    assert read(metrics, "Sum") == [(0, 39.0), (60, 60.0)]
    assert read(metrics, "Average") == [(0, 13.0), (60, 60.0)]
    assert read(metrics, "SampleCount") == [(0, 3.0), (60, 1.0)]
    assert read(metrics, "Minimum", 3600) == [(0, 0.0)]
    assert read(metrics, "Maximum", 1) == [(0, 9.0), (30, 30.0), (60, 60.0)]


def test_statistics_and_counts_are_taken_as_given(metrics: Metrics) -> None:
    put(metrics, Datum("loss", JOB, T0, statistics=Summary(10, 55, 1, 10), unit="Seconds"))
    assert read(metrics, "p50") == [(0, None)]
    put(metrics, Datum("loss", JOB, T0, values=[1.0, 100.0], counts=[9, 1], unit="Seconds"))
    assert read(metrics, "Sum") == [(0, 164.0)]
    assert read(metrics, "SampleCount") == [(0, 20.0)]
    assert read(metrics, "Maximum", unit="Seconds") == [(0, 100.0)]
    assert read(metrics, "Maximum", unit="Bytes") == []


def test_percentiles_are_within_one_percent(metrics: Metrics) -> None:
    rng = random.Random(3)
    values = [rng.lognormvariate(0, 3) * rng.choice((1, -1)) for _ in range(2000)]
    for number, value in enumerate(values):
        values[number] = 0.0 if number % 50 == 0 else value
    for start in range(0, 2000, 200):
        put(metrics, *(Datum("loss", JOB, T0 + start % 7, value) for value in values[start : start + 200]))
    values.sort()
    for percent in (1, 25, 50, 90, 99.5):
        exact = values[int(percent / 100 * 2000) - 1]
        ((_, found),) = read(metrics, f"p{percent}")
        assert found == pytest.approx(exact, rel=0.0101)
    assert read(metrics, "p100") == [(0, values[-1])]


def test_percentiles_of_equal_values_are_exact() -> None:
    summary = summary_of([(0.1, 3), (0.1, 4)])
    assert summary.value("p10") == summary.value("p99") == 0.1
    assert is_statistic("p99.99")
    assert not is_statistic("p101")
    assert not is_statistic("median")


@pytest.mark.parametrize(
    "datum",
    [
        Datum("loss", JOB, T0),
        Datum("loss", JOB, T0, float("nan")),
        Datum("loss", JOB, T0, 1.0, values=[1.0]),
        Datum("loss", JOB, T0, values=[1.0], counts=[1, 2]),
        Datum("loss", JOB, T0, values=[1.0], counts=[0]),
        Datum("loss", JOB, T0, statistics=Summary(1, float("inf"), 0, 0)),
    ],
)
def test_a_datum_without_sense_is_refused(metrics: Metrics, datum: Datum) -> None:
    with pytest.raises(ValueError, match="loss"):
        put(metrics, Datum("loss", JOB, T0, 1.0), datum)
    assert read(metrics, "Sum") == []


def test_old_data_becomes_coarse_and_then_goes(
    metrics: Metrics, clock: FakeClock, database: Database
) -> None:
    put(metrics, *(Datum("loss", JOB, T0 + second, second) for second in range(600)))
    whole = metrics.statistics(SPACE, "loss", JOB, region=REGION, start=T0, end=T0 + 600, period=600)[
        0
    ].summary
    for advance, rows in ((3 * 3600, 10), (15 * 86_400, 3), (63 * 86_400, 1)):
        clock.now = T0 + advance + 7200
        assert metrics.compact() > 0
        with database.read() as connection:
            assert connection.row("select count(*) from metric_points") == (rows,)
        begin = T0 // 3600 * 3600
        (point,) = metrics.statistics(
            SPACE, "loss", JOB, region=REGION, start=begin, end=begin + 7200, period=7200
        )
        for statistic in ("Sum", "SampleCount", "Minimum", "Maximum", "p50", "p99"):
            assert point.summary.value(statistic) == whole.value(statistic)
    clock.now = T0 + 456 * 86_400
    put(metrics, Datum("other", JOB, clock.now, 1.0))  # puts compact, too
    assert read(metrics, "Sum", 7200) == []


def test_series_are_listed(metrics: Metrics, clock: FakeClock) -> None:
    for number in range(2):
        host = {"Host": f"algo-{number}"}
        put(metrics, Datum("loss", host, T0, 1.0, unit="Percent"), Datum("acc", host, T0 - 20_000, 1.0))
    metrics.put("AWS/SageMaker", [Datum("Invocations", {"EndpointName": "e"}, T0, 1.0)], region=REGION)

    def found(**query: Any) -> list[tuple[str, str]]:
        items = metrics.list(region=REGION, **query).items
        return [(series.name, next(iter(series.dimensions.values()))) for series in items]

    assert found() == [
        ("acc", "algo-0"), ("acc", "algo-1"), ("loss", "algo-0"), ("loss", "algo-1"), ("Invocations", "e"),
    ]  # fmt: skip
    assert found(namespace=SPACE, recent=True) == [("loss", "algo-0"), ("loss", "algo-1")]
    assert found(name="acc", dimensions=[("Host", "algo-1")]) == [("acc", "algo-1")]
    assert found(dimensions=[("EndpointName", None)]) == [("Invocations", "e")]
    assert metrics.list(region="eu-west-1").items == []
    assert metrics.unit(SPACE, "loss", {"Host": "algo-0"}, region=REGION) == "Percent"
    assert metrics.unit(SPACE, "none", {}, region=REGION) == "None"


def test_many_series_come_in_pages(metrics: Metrics) -> None:
    put(
        metrics,
        *(
            Datum("loss", {"Host": f"algo-{number:04d}", "Odd": str(number % 2)}, T0, 1.0)
            for number in range(1203)
        ),
    )
    for dimensions, count in (((), 1203), ((("Odd", "1"),), 601), ((("Host", None), ("Odd", "0")), 602)):
        found: list[str] = []
        token = None
        while True:
            page = metrics.list(region=REGION, dimensions=dimensions, token=token)
            found += [series.dimensions["Host"] for series in page.items]
            token = page.next_token
            if token is None:
                break
        assert len(found) == len(set(found)) == count
    with pytest.raises(AwsError, match="Invalid NextToken"):
        metrics.list(region=REGION, token="x")


def test_threads_that_put_at_once_lose_nothing(database: Database) -> None:
    metrics = [Metrics(database), Metrics(database)]  # as two servers on one database

    def work(thread: int) -> None:
        for number in range(10):
            put(metrics[thread % 2], *(Datum(name, JOB, T0 + number, 1.0) for name in ("loss", "acc")))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert read(metrics[0], "SampleCount") == [(0, 60.0)]
