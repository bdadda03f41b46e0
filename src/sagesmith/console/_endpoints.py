"""Endpoints: the list; one with its variants, what they do at the moment, and a box to try it."""

from __future__ import annotations

import json
import time
from typing import Final

from sagesmith.console._http import Answer, path_of, redirect
from sagesmith.console._log import LogTail
from sagesmith.console._measures import measures
from sagesmith.console._pages import Context, Live, Pages, fragment
from sagesmith.console._scaling import scaling
from sagesmith.sdk import NotFound, Predictor, SdkError
from sagesmith.sdk._logs import ENDPOINTS

__all__ = ["pages"]

pages = Pages()
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
        newest=path_of("endpoints", name=name) if token else "",
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


class _Watch:
    """One endpoint: its state, what it does, how it scales and its log, looked at again and again."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._name = context.names["name"]
        self._log = LogTail(context.visit.session, f"{ENDPOINTS}/{self._name}", "", name=self._name)

    def look(self) -> tuple[dict[str, str], bool]:
        """Return the fragments of the endpoint's page; there is no last look but that of its end."""
        try:
            endpoint = self._context.call("sagemaker", "describe_endpoint", EndpointName=self._name)
        except NotFound:
            return {"status": '<p class="wrong">This endpoint has been deleted.</p>'}, True
        variants = endpoint.get("ProductionVariants", [])
        names = [variant["VariantName"] for variant in variants]
        self._log.read()
        return {
            "status": fragment("endpoint_status.html", endpoint=endpoint, variants=variants),
            "metrics": measures(self._context, self._name, names),
            "scaling": scaling(self._context, self._name, names),
            "log": self._log.fragment(),
        }, False


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
        "endpoint.html", name, endpoint=found, config=config, models=models, fragments=_Watch(context).look()[0],
        live=path_of("endpoints", name, "events"), sent=sent, kind=kind, answer=answer, note=note,
    )  # fmt: skip


@pages.page("GET", "/endpoints/{name}/events")
def endpoint_events(context: Context) -> Live:
    """One endpoint as it changes."""
    return Live(_Watch(context).look, pause_s=2.0)


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
    Predictor(context.names["name"], session=context.visit.session).delete()
    return redirect(path_of("endpoints", said=f"{context.names['name']} is being deleted."))
