"""Models: the list, and one with its container and archive."""

from __future__ import annotations

from sagesmith.console._http import Answer, path_of
from sagesmith.console._pages import Context, Pages

__all__ = ["pages"]

pages = Pages()


@pages.page("GET", "/models")
def models(context: Context) -> Answer:
    """The list."""
    name, token = context.request.one("name"), context.request.one("next")
    more = ({"NameContains": name} if name else {}) | ({"NextToken": token} if token else {})
    answer = context.call(
        "sagemaker", "list_models", SortBy="CreationTime", SortOrder="Descending", MaxResults=50, **more
    )
    following = answer.get("NextToken", "")
    return context.page(
        "models.html", "Models", models=answer["Models"], name=name, newest=path_of("models", name=name) if token else "",
        more=path_of("models", name=name, next=following) if following else "",
    )  # fmt: skip


@pages.page("GET", "/models/{name}")
def model(context: Context) -> Answer:
    """One model."""
    found = context.call("sagemaker", "describe_model", ModelName=context.names["name"])
    containers = found.get("Containers") or [found.get("PrimaryContainer", {})]
    return context.page("model.html", context.names["name"], model=found, containers=containers)
