"""Training jobs: the list, one job as it goes on, several side by side, stopping and doing it again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sagesmith.console._again import new_name, whole
from sagesmith.console._http import Answer, path_of, redirect
from sagesmith.console._log import LogTail
from sagesmith.console._pages import Context, Live, Pages, fragment
from sagesmith.sdk import Chart, Session, TrainingJob
from sagesmith.sdk._catalog import algorithm_of
from sagesmith.sdk._logs import TRAINING_JOBS, LogReader
from sagesmith.sdk._metrics import Metrics

__all__ = ["pages", "summaries"]

pages = Pages()
STATUSES: Final = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")
_ENDED: Final = ("Completed", "Failed", "Stopped")
_ASKED: Final = (
    "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition",
    "Environment", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining",
    "CheckpointConfig", "VpcConfig", "RetryStrategy",
)  # fmt: skip
"""The members of CreateTrainingJob that DescribeTrainingJob echoes."""


def summaries(context: Context, request: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return training jobs, the newest first, each with `took_s`, and the token of the next page."""
    answer = context.call(
        "sagemaker", "list_training_jobs", **{"SortBy": "CreationTime", "SortOrder": "Descending", **request}
    )
    found = answer["TrainingJobSummaries"]
    for job in found:
        end = job.get("TrainingEndTime") or (
            None if job["TrainingJobStatus"] in _ENDED else datetime.now(UTC)
        )
        job["took_s"] = (end - job["CreationTime"]).total_seconds() if end else None
    return found, str(answer.get("NextToken", ""))


def _listed(context: Context) -> str:
    request: dict[str, Any] = {"MaxResults": 50}
    for field, name in (("status", "StatusEquals"), ("name", "NameContains"), ("next", "NextToken")):
        if context.request.one(field):
            request[name] = context.request.one(field)
    jobs, token = summaries(context, request)
    status, name = context.request.one("status"), context.request.one("name")
    return fragment(
        "jobs_content.html", jobs=jobs, more=path_of("jobs", status=status, name=name, next=token) if token else "",
        newest=path_of("jobs", status=status, name=name) if "next" in context.request.query else "", filtered=bool(status or name),
    )  # fmt: skip


@pages.page("GET", "/jobs")
def jobs(context: Context) -> Answer:
    """The list."""
    live = path_of(
        "jobs", "-", "events", status=context.request.one("status"), name=context.request.one("name")
    )
    return context.page(
        "jobs.html", "Training jobs", content=_listed(context), statuses=STATUSES, status=context.request.one("status"),
        name=context.request.one("name"), live="" if context.request.one("next") else live,
    )  # fmt: skip


@pages.page("GET", "/jobs/-/events")
def jobs_events(context: Context) -> Live:
    """The list as it changes."""
    return Live(lambda: ({"content": _listed(context)}, False), pause_s=2.0)


class _Watch:
    """One job: what its description, log and metrics say, read further at each look."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        self._log = LogTail(session, TRAINING_JOBS, f"{name}/", name=name, whole=True)
        self._metrics: Metrics | None = None

    def look(self) -> tuple[dict[str, str], bool]:
        """Return the fragments of the job's page, and whether the job has ended."""
        job = self._session.call("sagemaker", "describe_training_job", TrainingJobName=self._name)
        ended = job["TrainingJobStatus"] in _ENDED
        if self._metrics is None:
            self._metrics = Metrics.of(job)
        self._metrics.take(self._log.read())
        final = {m["MetricName"]: m["Value"] for m in job.get("FinalMetricDataList", ())}
        end = job.get("TrainingEndTime") or job["LastModifiedTime"] if ended else datetime.now(UTC)
        return {
            "status": fragment(
                "job_status.html", job=job, took_s=(end - job["CreationTime"]).total_seconds()
            ),
            "metrics": fragment(
                "job_metrics.html", charts=_charts(self._metrics), latest=self._metrics.latest() or final
            ),
            "log": self._log.fragment(),
        }, ended


def _charts(metrics: Metrics) -> list[tuple[str, str]]:
    """Return title and chart for each group of metrics that measure the same, such as train:loss and validation:loss."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, step, value, _ in metrics.values:
        groups.setdefault(name.rpartition(":")[2], {}).setdefault(name, []).append((step, value))
    curves = {name: group for name, group in groups.items() if max(map(len, group.values())) > 1}
    return [(name, Chart(group, title=name).svg()) for name, group in list(curves.items())[:6]]


@pages.page("GET", "/jobs/{name}")
def job(context: Context) -> Answer:
    """One job."""
    name = context.names["name"]
    fragments, ended = _Watch(context.visit.session, name).look()
    found = context.call("sagemaker", "describe_training_job", TrainingJobName=name)
    return context.page(
        "job.html", name, job=found, fragments=fragments,
        live="" if ended else path_of("jobs", name, "events"), ended=ended,
    )  # fmt: skip


@pages.page("GET", "/jobs/{name}/events")
def job_events(context: Context) -> Live:
    """One job as it goes on."""
    return Live(_Watch(context.visit.session, context.names["name"]).look, pause_s=0.5)


@pages.page("POST", "/jobs/{name}/stop")
def stop(context: Context) -> Answer:
    """Stop a job."""
    TrainingJob(context.names["name"], session=context.visit.session).stop(wait=False)
    return redirect(path_of("jobs", context.names["name"], said="The job is stopping."))


@pages.page("GET", "/jobs/{name}/clone")
def clone_form(context: Context) -> Answer:
    """The form to run a job again, with other hyperparameters."""
    found = context.call("sagemaker", "describe_training_job", TrainingJobName=context.names["name"])
    name = context.names["name"]
    return context.page("clone.html", f"Clone {name}", job=found, new_name=new_name(name))


@pages.page("POST", "/jobs/{name}/clone")
def clone(context: Context) -> Answer:
    """Run a job again."""
    found = context.call("sagemaker", "describe_training_job", TrainingJobName=context.names["name"])
    request = {member: found[member] for member in _ASKED if found.get(member)}
    specification = dict(found["AlgorithmSpecification"])
    if algorithm_of(specification.get("TrainingImage", "")) is not None:
        specification.pop(
            "MetricDefinitions", None
        )  # SageMaker adds them by itself, more than a request may have
    request["AlgorithmSpecification"] = specification
    form = context.request.form
    names, values = form.get("hyperparameter", []), form.get("value", [])
    request["HyperParameters"] = {
        name.strip(): value for name, value in zip(names, values, strict=False) if name.strip()
    }
    request["ResourceConfig"] = {
        **found["ResourceConfig"], "InstanceType": context.request.one("instance_type"),
        "InstanceCount": whole(context, "instance_count", "The number of instances"),
    }  # fmt: skip
    new = context.request.one("new_name")
    context.call("sagemaker", "create_training_job", TrainingJobName=new, **request)
    return redirect(path_of("jobs", new))


@pages.page("GET", "/compare")
def compare(context: Context) -> Answer:
    """Several jobs side by side: what differs, and their curves in one chart."""
    names = list(dict.fromkeys(context.request.query.get("job", [])))[:8]
    if len(names) < 2:
        return redirect(path_of("jobs", said="Choose two or more jobs to compare."))
    found: list[dict[str, Any]] = []
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name in names:
        described = context.call("sagemaker", "describe_training_job", TrainingJobName=name)
        metrics = Metrics.of(described)
        metrics.take(LogReader(context.visit.session, TRAINING_JOBS, f"{name}/").read())
        for metric, step, value, _ in metrics.values:
            charts.setdefault(metric, {}).setdefault(name, []).append((step, value))
        final = {m["MetricName"]: m["Value"] for m in described.get("FinalMetricDataList", ())}
        found.append({"job": described, "metrics": metrics.latest() or final})
    shared = [m for m, group in charts.items() if max(map(len, group.values())) > 1]
    parameters = sorted({name for each in found for name in each["job"].get("HyperParameters", {})})
    measures = sorted({name for each in found for name in each["metrics"]})
    return context.page(
        "compare.html", "Compare", found=found, measures=measures,
        parameters=[
            (name, [each["job"].get("HyperParameters", {}).get(name, "") for each in found]) for name in parameters
        ],
        charts=[(metric, Chart(charts[metric], title=metric).svg()) for metric in shared[:8]],
    )  # fmt: skip
