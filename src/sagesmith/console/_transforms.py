"""Batch transform jobs: the list, one job as it goes on with what it has written, and stopping it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sagesmith.console._again import new_name, whole
from sagesmith.console._http import Answer, path_of, redirect
from sagesmith.console._log import LogTail
from sagesmith.console._pages import Context, Live, Pages, fragment
from sagesmith.sdk import SdkError, Session, TransformJob
from sagesmith.sdk._logs import TRANSFORM_JOBS
from sagesmith.sdk._upload import split_uri

__all__ = ["pages", "transforms"]

pages = Pages()
STATUSES: Final = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")
_ENDED: Final = ("Completed", "Failed", "Stopped")
_OUTPUTS: Final = 20
_ASKED: Final = (
    "MaxConcurrentTransforms", "ModelClientConfig", "MaxPayloadInMB", "BatchStrategy", "Environment", "TransformInput",
    "TransformOutput", "DataCaptureConfig", "TransformResources", "DataProcessing",
)  # fmt: skip
"""The members of CreateTransformJob that DescribeTransformJob echoes, beside the names."""


def transforms(context: Context, request: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return transform jobs, the newest first, each with `took_s`, and the token of the next page."""
    answer = context.call(
        "sagemaker", "list_transform_jobs", **{"SortBy": "CreationTime", "SortOrder": "Descending", **request}
    )
    found = answer["TransformJobSummaries"]
    for job in found:
        job["took_s"] = _took(job)
    return found, str(answer.get("NextToken", ""))


def _took(job: Mapping[str, Any]) -> float | None:
    """Return how many seconds a job has taken so far, from its creation; None if its end is not told."""
    end = job.get("TransformEndTime")
    if end is None:
        if job["TransformJobStatus"] in _ENDED:
            return None
        end = datetime.now(UTC)
    return float((end - job["CreationTime"]).total_seconds())


def _listed(context: Context) -> str:
    request: dict[str, Any] = {"MaxResults": 50}
    for field, name in (("status", "StatusEquals"), ("name", "NameContains"), ("next", "NextToken")):
        if context.request.one(field):
            request[name] = context.request.one(field)
    jobs, token = transforms(context, request)
    status, name = context.request.one("status"), context.request.one("name")
    return fragment(
        "transforms_content.html", jobs=jobs, filtered=bool(status or name),
        newest=path_of("transforms", status=status, name=name) if "next" in context.request.query else "",
        more=path_of("transforms", status=status, name=name, next=token) if token else "",
    )  # fmt: skip


@pages.page("GET", "/transforms")
def transform_jobs(context: Context) -> Answer:
    """The list."""
    status, name = context.request.one("status"), context.request.one("name")
    live = path_of("transforms", "-", "events", status=status, name=name)
    return context.page(
        "transforms.html", "Transform jobs", content=_listed(context), statuses=STATUSES, status=status, name=name,
        live="" if context.request.one("next") else live,
    )  # fmt: skip


@pages.page("GET", "/transforms/-/events")
def transform_jobs_events(context: Context) -> Live:
    """The list as it changes."""
    return Live(lambda: ({"content": _listed(context)}, False), pause_s=2.0)


class _Watch:
    """One job: what its description, its log and its output folder say, looked at again and again."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        self._log = LogTail(session, TRANSFORM_JOBS, f"{name}/", name=name)

    def look(self) -> tuple[dict[str, str], bool]:
        """Return the fragments of the job's page, and whether the job has ended."""
        job = self._session.call("sagemaker", "describe_transform_job", TransformJobName=self._name)
        self._log.read()
        return {
            "status": fragment("transform_status.html", job=job, took_s=_took(job)),
            "outputs": self._outputs(job["TransformOutput"]["S3OutputPath"]),
            "log": self._log.fragment(),
        }, job["TransformJobStatus"] in _ENDED

    def _outputs(self, uri: str) -> str:
        bucket, prefix = split_uri(uri.rstrip("/") + "/")
        objects, more, trouble = [], False, ""
        try:
            answer = self._session.call(
                "s3", "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=_OUTPUTS
            )
            objects, more = answer.get("Contents", []), answer.get("IsTruncated", False)
        except SdkError as error:
            trouble = str(error)
        return fragment(
            "transform_outputs.html",
            bucket=bucket,
            prefix=prefix,
            objects=objects,
            more=more,
            trouble=trouble,
        )


@pages.page("GET", "/transforms/{name}")
def transform_job(context: Context) -> Answer:
    """One job."""
    name = context.names["name"]
    found = context.call("sagemaker", "describe_transform_job", TransformJobName=name)
    fragments, ended = _Watch(context.visit.session, name).look()
    return context.page(
        "transform.html", name, job=found, fragments=fragments, ended=ended,
        live="" if ended else path_of("transforms", name, "events"),
    )  # fmt: skip


@pages.page("GET", "/transforms/{name}/events")
def transform_job_events(context: Context) -> Live:
    """One job as it goes on."""
    return Live(_Watch(context.visit.session, context.names["name"]).look, pause_s=0.5)


@pages.page("POST", "/transforms/{name}/stop")
def stop(context: Context) -> Answer:
    """Stop a job."""
    TransformJob(context.names["name"], session=context.visit.session).stop(wait=False)
    return redirect(path_of("transforms", context.names["name"], said="The job is stopping."))


@pages.page("GET", "/transforms/{name}/clone")
def clone_form(context: Context) -> Answer:
    """The form to run a job again, with other data or another model. What it writes goes to a place of its own."""
    name = context.names["name"]
    found = context.call("sagemaker", "describe_transform_job", TransformJobName=name)
    new, before = new_name(name), found["TransformOutput"]["S3OutputPath"].rstrip("/")
    output = before.removesuffix(f"/{name}") + f"/{new}"
    return context.page(
        "clone_transform.html", f"Clone {name}", job=found, new_name=new, output=output,
    )  # fmt: skip


@pages.page("POST", "/transforms/{name}/clone")
def clone(context: Context) -> Answer:
    """Run a job again."""
    found = context.call("sagemaker", "describe_transform_job", TransformJobName=context.names["name"])
    request = {member: found[member] for member in _ASKED if member in found}
    one, new = context.request.one, context.request.one("new_name")
    request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = one("source")
    request["TransformOutput"]["S3OutputPath"] = one("output")
    request["TransformResources"] |= {
        "InstanceType": one("instance_type"),
        "InstanceCount": whole(context, "instance_count", "The number of instances"),
    }
    context.call("sagemaker", "create_transform_job", TransformJobName=new, ModelName=one("model"), **request)
    return redirect(path_of("transforms", new))
