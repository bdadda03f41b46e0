"""Notebook instances: the list with what can be done with each, a form for a new one, and the way in."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from sagesmith.console._http import Answer, path_of, redirect
from sagesmith.console._pages import Context, Live, Pages, fragment

__all__ = ["pages"]

pages = Pages()
_TYPES: Final = ("ml.t3.medium", "ml.t3.large", "ml.m5.xlarge", "ml.m5.2xlarge", "ml.g5.xlarge")


def _listed(context: Context) -> str:
    token = context.request.one("next")
    more = {"NextToken": token} if token else {}
    answer = context.call("sagemaker", "list_notebook_instances", MaxResults=50, **more)
    found, following = answer["NotebookInstances"], answer.get("NextToken", "")
    for each in found:
        if each["NotebookInstanceStatus"] == "Failed":
            name = each["NotebookInstanceName"]
            described = context.call("sagemaker", "describe_notebook_instance", NotebookInstanceName=name)
            each["FailureReason"] = described.get("FailureReason", "")
    return fragment(
        "notebooks_content.html", notebooks=found, visit=context.visit,
        more=path_of("notebooks", next=following) if following else "",
    )  # fmt: skip


@pages.page("GET", "/notebooks")
def notebooks(context: Context) -> Answer:
    """The list, and the form."""
    live = "" if context.request.one("next") else path_of("notebooks", "-", "events")
    return context.page(
        "notebooks.html", "Notebook instances", content=_listed(context), live=live, types=_TYPES,
        role=context.visit.session.role,
    )  # fmt: skip


@pages.page("GET", "/notebooks/-/events")
def notebooks_events(context: Context) -> Live:
    """The list as it changes."""
    return Live(lambda: ({"content": _listed(context)}, False), pause_s=2.0)


@pages.page("POST", "/notebooks/-/create")
def create(context: Context) -> Answer:
    """Make one."""
    name, one = context.request.one("new_name"), context.request.one
    context.call(
        "sagemaker", "create_notebook_instance", NotebookInstanceName=name,
        InstanceType=one("instance_type"), RoleArn=one("role"),
    )  # fmt: skip
    return redirect(path_of("notebooks", said=f"{name} is being created."))


@pages.page("POST", "/notebooks/{name}/start")
def start(context: Context) -> Answer:
    """Start one."""
    return _changed(context, "start", "is being started")


@pages.page("POST", "/notebooks/{name}/end")
def end(context: Context) -> Answer:
    """Stop one."""
    return _changed(context, "stop", "is being stopped")


@pages.page("POST", "/notebooks/{name}/delete")
def delete(context: Context) -> Answer:
    """Delete one with its files."""
    return _changed(context, "delete", "is being deleted")


@pages.page("POST", "/notebooks/{name}/open")
def enter(context: Context) -> Answer:
    """Lead the browser in, under the name that it knows the server by."""
    name = context.names["name"]
    answer = context.call("sagemaker", "create_presigned_notebook_instance_url", NotebookInstanceName=name)
    url = urlsplit(answer["AuthorizedUrl"])
    return redirect(f"{url.path}?{url.query}")


def _changed(context: Context, verb: str, what: str) -> Answer:
    name = context.names["name"]
    context.call("sagemaker", f"{verb}_notebook_instance", NotebookInstanceName=name)
    return redirect(path_of("notebooks", said=f"{name} {what}."))
