"""The overview, and the settings: who one is, keys, what the server can do."""

from __future__ import annotations

from collections import Counter

from sagesmith.console._http import Answer, path_of
from sagesmith.console._jobs import summaries
from sagesmith.console._pages import Context, Live, Pages, fragment
from sagesmith.console._transforms import transforms
from sagesmith.sdk import SdkError

__all__ = ["pages"]

pages = Pages()


def _content(context: Context) -> str:
    jobs, _ = summaries(context, {"MaxResults": 100})
    endpoints = context.call(
        "sagemaker", "list_endpoints", SortBy="CreationTime", SortOrder="Descending", MaxResults=100
    )["Endpoints"]
    transform_jobs, _ = transforms(context, {"MaxResults": 5})
    return fragment(
        "overview_content.html",
        jobs=jobs[:8],
        endpoints=endpoints[:8],
        transforms=transform_jobs,
        job_counts=Counter(job["TrainingJobStatus"] for job in jobs),
        endpoint_counts=Counter(endpoint["EndpointStatus"] for endpoint in endpoints),
        more=len(jobs) == 100,
    )


@pages.page("GET", "/")
def overview(context: Context) -> Answer:
    """Jobs and endpoints at a glance."""
    return context.page("overview.html", "Overview", content=_content(context), live=path_of("events"))


@pages.page("GET", "/events")
def events(context: Context) -> Live:
    """The overview as it changes."""
    return Live(lambda: ({"content": _content(context)}, False), pause_s=2.0)


@pages.page("GET", "/settings")
def settings(context: Context) -> Answer:
    """Who one is, one's keys, and what the server can do."""
    identity = context.visit.session.identity()
    keys, trouble = [], ""
    try:
        keys = context.call("iam", "list_access_keys")["AccessKeyMetadata"]
    except SdkError as error:
        trouble = str(error)
    data = context.coverage()
    wanted = context.request.one("service", "sagemaker")
    chosen = data.get(wanted, {})
    return context.page(
        "settings.html",
        "Settings",
        identity=identity,
        keys=keys,
        trouble=trouble,
        url=context.visit.session.url,
        region=context.visit.session.region,
        services={name: Counter(kinds.values()) for name, kinds in sorted(data.items())},
        wanted=wanted,
        operations={
            kind: sorted(name for name, found in chosen.items() if found == kind)
            for kind in ("real", "record-only", "missing")
        },
    )
