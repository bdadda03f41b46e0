"""Endpoints: the list; one with its variants, what they do at the moment, and a box to try it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sagesmith.console._http import Answer, path_of
from sagesmith.console._pages import Context, Live, Pages, fragment
from sagesmith.sdk import Chart, Predictor, SdkError

__all__ = ["pages"]

pages = Pages()
_PERIOD_S: Final = 60
_WINDOW: Final = timedelta(minutes=30)
_SHOWN: Final = 20_000


def _listed(context: Context) -> str:
    name, token = context.request.one("name"), context.request.one("next")
    more = ({"NameContains": name} if name else {}) | ({"NextToken": token} if token else {})
    answer = context.call(
        "sagemaker", "list_endpoints", SortBy="CreationTime", SortOrder="Descending", MaxResults=50, **more
    )
    following = answer.get("NextToken", "")
    return fragment(
        "endpoints_content.html", endpoints=answer["Endpoints"], filtered=bool(name),
        more=path_of("endpoints", name=name, next=following) if following else "",
    )  # fmt: skip


@pages.page("GET", "/endpoints")
def endpoints(context: Context) -> Answer:
    """The list."""
    name = context.request.one("name")
    live = "" if context.request.one("next") else path_of("endpoints", "-", "events", name=name)
    return context.page("endpoints.html", "Endpoints", content=_listed(context), name=name, live=live)


@pages.page("GET", "/endpoints/-/events")
def endpoints_events(context: Context) -> Live:
    """The list as it changes."""
    return Live(lambda: ({"content": _listed(context)}, False), pause_s=2.0)


def _measured(context: Context, name: str, variants: list[str]) -> dict[str, Any]:
    """Return for the last half hour, minute by minute: requests, latency percentiles in ms, and errors."""
    wanted = (
        ("requests", "Invocations", "Sum"),
        ("p50", "ModelLatency", "p50"),
        ("p95", "ModelLatency", "p95"),
        ("p99", "ModelLatency", "p99"),
        ("4xx", "Invocation4XXErrors", "Sum"),
        ("5xx", "Invocation5XXErrors", "Sum"),
    )
    queries, labels = [], {}
    for number, variant in enumerate(variants):
        for key, metric, statistic in wanted:
            query = f"m{number}_{key}"
            labels[query] = (variant, key)
            queries.append({
                "Id": query,
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SageMaker", "MetricName": metric,
                        "Dimensions": [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": variant}],
                    },
                    "Period": _PERIOD_S, "Stat": statistic,
                },
            })  # fmt: skip
    now = datetime.now(UTC)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {"rate": {}, "latency": {}, "errors": {}}
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
            found["rate"][variant] = [(x, y / _PERIOD_S) for x, y in points]
            totals["requests"] += sum(y for _, y in points)
        elif key in ("4xx", "5xx"):
            found["errors"][f"{variant} {key}"] = points
            totals["errors"] += sum(y for _, y in points)
        else:
            found["latency"][f"{variant} {key}"] = [(x, y / 1000) for x, y in points]
    return {
        "charts": [
            (title, Chart(found[key], title=title, x_label="minutes ago").svg())
            for key, title in (("rate", "Requests per second"), ("latency", "Model latency, ms"), ("errors", "Errors per minute"))
            if any(found[key].values())
        ],
        "totals": totals,
    }  # fmt: skip


def _fragments(context: Context) -> dict[str, str]:
    name = context.names["name"]
    endpoint = context.call("sagemaker", "describe_endpoint", EndpointName=name)
    variants = endpoint.get("ProductionVariants", [])
    trouble, measured = "", {"charts": [], "totals": {"requests": 0, "errors": 0}}
    try:
        if variants:
            measured = _measured(context, name, [variant["VariantName"] for variant in variants])
    except SdkError as error:
        trouble = str(error)
    return {
        "status": fragment("endpoint_status.html", endpoint=endpoint, variants=variants),
        "metrics": fragment("endpoint_metrics.html", trouble=trouble, **measured),
    }


@pages.page("GET", "/endpoints/{name}")
def endpoint(context: Context) -> Answer:
    """One endpoint."""
    return _page(context)


def _page(
    context: Context, *, sent: str = "", kind: str = "text/csv", answer: str = "", note: str = ""
) -> Answer:
    name = context.names["name"]
    found = context.call("sagemaker", "describe_endpoint", EndpointName=name)
    config, models = found.get("EndpointConfigName", ""), []
    if config:
        described = context.call("sagemaker", "describe_endpoint_config", EndpointConfigName=config)
        models = [v["ModelName"] for v in described["ProductionVariants"] if v.get("ModelName")]
    return context.page(
        "endpoint.html", name, endpoint=found, config=config, models=models, fragments=_fragments(context),
        live=path_of("endpoints", name, "events"), sent=sent, kind=kind, answer=answer, note=note,
    )  # fmt: skip


@pages.page("GET", "/endpoints/{name}/events")
def endpoint_events(context: Context) -> Live:
    """One endpoint as it changes."""
    return Live(lambda: (_fragments(context), False), pause_s=2.0)


@pages.page("POST", "/endpoints/{name}/try")
def try_it(context: Context) -> Answer:
    """Send the content of the box."""
    sent, kind = context.request.one("body"), context.request.one("kind", "text/csv")
    predictor = Predictor(context.names["name"], session=context.visit.session)
    began = time.perf_counter()
    try:
        body, answered = predictor.invoke(sent.replace("\r\n", "\n").encode(), content_type=kind)
    except SdkError as error:
        return _page(context, sent=sent, kind=kind, answer=str(error), note="The request was refused:")
    took_ms = (time.perf_counter() - began) * 1000
    text = body.decode("utf-8", "replace")
    if answered.startswith("application/json"):
        text = json.dumps(json.loads(text), indent=2)
    return _page(
        context,
        sent=sent,
        kind=kind,
        answer=text[:_SHOWN],
        note=f"{answered}, {len(body)} bytes, {took_ms:.1f} ms:",
    )


@pages.page("POST", "/endpoints/{name}/delete")
def delete(context: Context) -> Answer:
    """Delete the endpoint with its configuration and models."""
    from sagesmith.console._http import redirect

    Predictor(context.names["name"], session=context.visit.session).delete()
    return redirect(path_of("endpoints", said=f"{context.names['name']} is being deleted."))
