"""The composition root: makes every part of a server, hands each what it needs, starts and ends them in order.

This is the only module that may import everything. It holds no behaviour of its own beyond order: what must
stand before what, and what must end before what. Start: database, identities, fleet (instances of an earlier
server may speak again), HTTP (their messages and clients' requests can arrive), drivers (take up unfinished
work), sweep (end what no driver wants). End: the same backwards.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from sagesmith import __version__, images
from sagesmith.alarms import AlarmWatch
from sagesmith.authority import Authority
from sagesmith.aws import Api, Catalog, HttpRequest, HttpResponse, HttpServer, ServiceModel, Tunnel
from sagesmith.config import Home, Settings, SettingsError
from sagesmith.connect import is_aws
from sagesmith.fleet.local import LocalFleet
from sagesmith.hosting import Endpoints
from sagesmith.hosting import Parts as HostingParts
from sagesmith.hosting.async_inference import AsyncInference
from sagesmith.hosting.capacity import ComponentCapacity, ProvisionedConcurrency, VariantCapacity
from sagesmith.hosting.capture import Captures
from sagesmith.hosting.components import Components
from sagesmith.hosting.gateway import Gateway
from sagesmith.instance.spec import ServerAddress
from sagesmith.jobs import TrainingJobs, TransformJobs
from sagesmith.lifecycle.endpoint import Deployment
from sagesmith.locks import HomeInUse, hold_lock
from sagesmith.notebooks import NotebookGateway, Notebooks, Volumes
from sagesmith.notebooks.addresses import PREFIX as NOTEBOOKS
from sagesmith.notebooks.gateway import Switched
from sagesmith.scaling import Scaler
from sagesmith.services import (
    application_autoscaling,
    cloudwatch,
    ecr,
    iam,
    logs,
    s3,
    sagemaker,
    sagemaker_runtime,
    sts,
)
from sagesmith.store.alarms import Alarms
from sagesmith.store.database import Database, DatabaseError
from sagesmith.store.identities import Identities
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.objects import ObjectStore
from sagesmith.store.registry import Registry
from sagesmith.store.resources import Resources
from sagesmith.store.scaling import Scaling
from sagesmith.store.threads import in_thread

__all__ = ["coverage", "main"]

log = logging.getLogger("sagesmith.server")

INVOCATIONS_END_S: Final = 30.0
LOGS_EXPIRE_EVERY_S: Final = 3600.0


@dataclass(slots=True)
class Parts:
    """Everything that the services stand on."""

    settings: Settings
    catalog: Catalog
    resources: Resources
    logs: Logs
    metrics: Metrics
    alarms: Alarms
    scaling: Scaling
    scaler: Scaler
    capacity: Mapping[tuple[str, str], VariantCapacity | ProvisionedConcurrency | ComponentCapacity]
    identities: Identities
    objects: ObjectStore
    registry: Registry
    fleet: LocalFleet
    gateway: Gateway
    captures: Captures
    asynchronous: AsyncInference
    jobs: TrainingJobs
    transform_jobs: TransformJobs
    endpoints: Endpoints
    components: Components
    notebooks: Notebooks
    notebook_gateway: NotebookGateway
    volumes: Volumes
    url: Callable[[], str]
    authorizer: iam.IamAuthorizer
    database_is_local: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until it is told to end (SIGTERM, SIGINT); return the exit code."""
    home, settings = _options(arguments)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    os.umask(0o077)
    home.path.mkdir(parents=True, exist_ok=True)
    import uvloop

    try:
        with hold_lock(home):
            uvloop.run(_serve(home, settings))
    except (HomeInUse, DatabaseError, SettingsError) as fault:
        print(f"sagesmith: {fault}", file=sys.stderr)
        return 1
    except OSError as fault:
        print(f"sagesmith: {fault}", file=sys.stderr)
        return 1
    return 0


def coverage() -> dict[str, dict[str, str]]:
    """Return, per service and operation, `real`, `record-only` or `missing`. Needs no running server."""
    nothing: Any = _Nothing()
    names = Parts.__slots__
    parts = Parts(**dict.fromkeys(names, nothing))
    api = Api(
        _handlers(parts), keys=nothing, authorize=nothing, account_id="0" * 12, default_region="us-east-1"
    )
    return api.coverage()


class _Nothing:
    """Stands in for parts where only the handlers' marks are read."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *_: object, **__: object) -> _Nothing:
        return self


def _handlers(parts: Parts) -> list[object]:
    return [
        *sagemaker.handlers(
            resources=parts.resources,
            notify_job=parts.jobs.notify,
            notify_transform_job=parts.transform_jobs.notify,
            notify_endpoint=parts.endpoints.notify,
            notify_component=parts.components.notify,
            notify_notebook=parts.notebooks.notify,
            volume_bytes=parts.volumes.held_bytes,
            url=parts.url,
            check_instance_type=parts.fleet.shape,
            has_object=parts.objects.has,
            default_role_arn=f"arn:aws:iam::{parts.settings.account_id}:role/{parts.settings.default_role}",
            has_alarm=lambda region, name: parts.alarms.get(region, name) is not None,
            resolve=images.resolve,
            check_image=sagemaker.OwnImages(parts.registry).check,
            model=lambda: _sagemaker_model(parts.catalog),
        ),
        sagemaker_runtime.Runtime(parts.gateway, parts.asynchronous),
        *s3.handlers(parts.objects, check_policy=lambda text: iam.check_document(text, "resource")),
        *iam.handlers(parts.identities, parts.authorizer, strict=parts.settings.strict_iam),
        *sts.handlers(parts.identities, parts.authorizer, strict=parts.settings.strict_iam),
        *ecr.handlers(parts.registry, parts.resources, parts.identities),
        *logs.handlers(parts.logs, parts.resources),
        *cloudwatch.handlers(parts.metrics, parts.alarms, parts.resources),
        *application_autoscaling.handlers(
            parts.scaling,
            parts.alarms,
            parts.resources,
            exists=lambda target: (
                parts.capacity[target.kind].read(target.region, target.resource_id) is not None
            ),
            limits=lambda target: parts.capacity[target.kind].limits(target.region, target.resource_id),
            notify=parts.scaler.notify,
            period_s=parts.settings.scaling_period_s,
        ),
    ]


async def _serve(home: Home, settings: Settings) -> None:
    began = time.time()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        authority = Authority(home)
        context = await asyncio.to_thread(authority.server_context, settings.host)
        # Notebooks come to the server under those names of AWS's hosts that the SDKs have in their code.
        authority.answer_as(context, is_aws)
        parts = await _make_parts(home, settings, stack)
        state: dict[str, Any] = {
            "url": "",
            "http_url": "",
            "pid": os.getpid(),
            "region": settings.region,
            "account_id": settings.account_id,
            "started": began,
            "token": secrets.token_urlsafe(24),
            "ready": False,
        }
        status = _StatusRoute(home, parts, state)
        api = Api(
            _handlers(parts),
            keys=iam.IdentityKeys(parts.identities).find,
            authorize=parts.authorizer,
            account_id=settings.account_id,
            max_skew_s=settings.max_skew_s,
            default_region=settings.region,
            catalog=parts.catalog,
            inline_reads=parts.database_is_local,
        )
        http = HttpServer(
            api,
            raw_routes={
                "/_sagesmith/instances/": _instances_route(parts.fleet),
                "/_sagesmith/status": status,
                "/_sagesmith/console": _console_route(home, settings, state, stack),
            },
            stream_routes={
                "/v2/": ecr.Distribution(
                    parts.registry,
                    iam.IdentityKeys(parts.identities).find,
                    parts.authorizer,
                    account_id=settings.account_id,
                )
            },
            switching_routes={NOTEBOOKS: _notebooks_route(parts.notebook_gateway)},
            fast_routes=[
                route(parts.gateway, parts.authorizer.authorize_resource, parts.captures)
                for route in (sagemaker_runtime.InvokeRoute, sagemaker_runtime.StreamRoute)
            ],
        )
        port = await http.start(settings.host, settings.port, context)
        stack.push_async_callback(http.close)
        name = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104 - compared, not bound
        state["url"] = f"https://{f'[{name}]' if ':' in name else name}:{port}"
        if settings.http_port:
            await http.start("127.0.0.1", settings.http_port)
            state["http_url"] = f"http://127.0.0.1:{settings.http_port}"
        _write_private(home.server_file, state)
        stack.callback(home.server_file.unlink, missing_ok=True)

        ending = False
        stack.push_async_callback(lambda: parts.fleet.close(end_instances=ending))
        await parts.endpoints.start()
        stack.push_async_callback(parts.endpoints.close)
        await parts.components.start()
        stack.push_async_callback(parts.components.close)
        parts.gateway.starting = False
        await parts.asynchronous.start()
        stack.push_async_callback(parts.asynchronous.close)
        await parts.jobs.start()
        stack.push_async_callback(parts.jobs.close)
        await parts.scaler.start()
        stack.push_async_callback(parts.scaler.close)
        watch = AlarmWatch(
            parts.alarms, parts.metrics, parts.scaler.act, lag_s=settings.metrics_every_s + 1.0
        )
        watch.start()
        stack.push_async_callback(watch.close)
        await parts.transform_jobs.start()
        stack.push_async_callback(parts.transform_jobs.close)
        await parts.notebooks.start()
        stack.push_async_callback(parts.notebooks.close)
        drivers = (parts.jobs, parts.transform_jobs, parts.endpoints, parts.components, parts.notebooks)
        await parts.fleet.sweep([instance for driver in drivers for instance in driver.instances()])
        state["ready"] = True
        _write_private(home.server_file, state)
        log.info("Sagesmith %s answers at %s (home %s)", __version__, state["url"], home.path)
        await stopped.wait()
        ending = True
        log.info("Ending: invocations first, then instances, then the server")
        await parts.gateway.end(INVOCATIONS_END_S)
    log.info("Ended")


async def _make_parts(home: Home, settings: Settings, stack: AsyncExitStack) -> Parts:
    database = Database(settings.database_url or f"sqlite:///{home.database}")
    stack.callback(database.close)
    await asyncio.to_thread(database.migrate)
    catalog = Catalog()
    identities = Identities(database, settings.account_id, default_role=settings.default_role)
    key = await asyncio.to_thread(identities.ensure_administrator)
    _write_private(
        home.credentials,
        {"AccessKeyId": key.access_key_id, "SecretAccessKey": key.secret_access_key},
    )
    resources = Resources(database, summarize=sagemaker.summaries(lambda: _sagemaker_model(catalog)))
    log_store, metrics = Logs(database), Metrics(database)
    objects = ObjectStore(database, home.objects)
    stack.callback(objects.close)
    registry = Registry(objects, resources, account_id=settings.account_id, region=settings.region)
    swept = asyncio.create_task(asyncio.to_thread(_sweep, objects, registry))
    stack.callback(swept.cancel)
    stack.push_async_callback(_cancel, asyncio.create_task(_expire_logs(log_store)))
    fleet = LocalFleet(home, settings, warm_modules=images.WARM_MODULES)
    await fleet.open()

    def server() -> ServerAddress:
        state = json.loads(home.server_file.read_text("utf-8"))
        return ServerAddress(
            url=state["url"], ca_file=str(home.authority / "ca.pem"), server_file=str(home.server_file)
        )

    common: dict[str, Any] = {
        "resources": resources,
        "fleet": fleet,
        "logs": log_store,
        "metrics": metrics,
        "identities": identities,
        "server": server,
        "account_id": settings.account_id,
        "resolve": images.resolve,
    }
    gateway = Gateway(
        settings.account_id,
        sink=metrics.put,
        timeout_s=settings.invocation_timeout_s,
        flush_s=settings.metrics_every_s,
    )
    gateway.start()
    gateway.starting = True  # until it knows the endpoints and components there are
    stack.push_async_callback(gateway.close)
    captures = Captures(objects.put_bytes)
    captures.start()
    stack.push_async_callback(captures.close)
    alarms = Alarms(resources, settings.account_id)
    asynchronous = AsyncInference(
        resources, gateway, objects, metrics.put, metrics_s=settings.metrics_every_s
    )

    def deployed(region: str, name: str, deployment: Deployment | None) -> None:
        captures.set(region, name, deployment.capture if deployment else {})
        asynchronous.set(region, name, deployment.asynchronous if deployment else {})

    def notify_endpoint(arn: str) -> None:
        endpoints.notify(arn)

    serving = HostingParts(
        gateway=gateway, raised=alarms.raised, answer_s=settings.invocation_timeout_s, **common
    )
    components = Components(serving, notify_endpoint=notify_endpoint, idle_s=float(settings.scaling_period_s))
    endpoints = Endpoints(
        replace(serving, deployed=deployed, hosts=components, idle_s=settings.serverless_idle_s)
    )
    scaling = Scaling(resources, settings.account_id)
    capacity: dict[tuple[str, str], VariantCapacity | ProvisionedConcurrency | ComponentCapacity] = {
        ("sagemaker", "sagemaker:variant:DesiredInstanceCount"): VariantCapacity(resources, endpoints.notify),
        ("sagemaker", "sagemaker:variant:DesiredProvisionedConcurrency"): ProvisionedConcurrency(
            resources, endpoints.notify
        ),
        ("sagemaker", "sagemaker:inference-component:DesiredCopyCount"): ComponentCapacity(
            resources, components.notify
        ),
    }
    scaler = Scaler(scaling, alarms, capacity)
    jobs = TrainingJobs(**common)
    notebook_gateway, volumes = NotebookGateway(), Volumes(home.notebooks)
    of_notebooks = {name: part for name, part in common.items() if name != "resolve"}
    return Parts(
        settings=settings,
        catalog=catalog,
        database_is_local=database.is_local,
        resources=resources,
        logs=log_store,
        metrics=metrics,
        alarms=alarms,
        scaling=scaling,
        scaler=scaler,
        capacity=capacity,
        identities=identities,
        objects=objects,
        registry=registry,
        fleet=fleet,
        gateway=gateway,
        captures=captures,
        asynchronous=asynchronous,
        jobs=jobs,
        transform_jobs=TransformJobs(**common),
        endpoints=endpoints,
        components=components,
        notebooks=Notebooks(table=notebook_gateway, volumes=volumes, **of_notebooks),
        notebook_gateway=notebook_gateway,
        volumes=volumes,
        url=lambda: server().url,
        authorizer=iam.IamAuthorizer(
            identities,
            settings.account_id,
            settings.strict_iam,
            bucket_policy=objects.buckets.policy,
            resource_tags=resources.tags,
        ),
    )


def _sagemaker_model(catalog: Catalog) -> ServiceModel:
    model = catalog.get("sagemaker")
    if model is None:
        raise ModuleNotFoundError("botocore's model of SageMaker is not installed.")
    return model


def _sweep(objects: ObjectStore, registry: Registry) -> None:
    """Remove what an earlier server began and did not finish."""
    objects.sweep()
    registry.sweep(time.time())


async def _expire_logs(log_store: Logs) -> None:
    """Remove what log groups do not keep any longer: now, and every hour."""
    while True:
        try:
            await in_thread(log_store.expire)
        except Exception:
            log.exception("removing expired logs failed; it will be tried again in an hour")
        await asyncio.sleep(LOGS_EXPIRE_EVERY_S)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _instances_route(fleet: LocalFleet) -> Any:
    async def answer(request: HttpRequest) -> HttpResponse:
        status, headers, body = await fleet.raw_handler(request)
        return HttpResponse(status, headers, body)

    return answer


def _notebooks_route(gateway: NotebookGateway) -> Any:
    async def answer(request: HttpRequest) -> HttpResponse | Tunnel:
        found = await gateway(request)
        if isinstance(found, Switched):
            reader, writer = found.answer.ends
            return Tunnel(found.headers, reader, writer, found.answer.rest)
        return HttpResponse(found.status, found.headers, found.body, found.cookies)

    return answer


def _console_route(home: Home, settings: Settings, state: Mapping[str, Any], stack: AsyncExitStack) -> Any:
    """Return the console's route. The console is imported and made at the first request: few need it at the start."""
    made: list[Any] = []

    def make() -> Any:
        from sagesmith.console import Console

        return Console(
            url=state["url"],
            ca_file=str(home.authority / "ca.pem"),
            region=settings.region,
            coverage=cache(coverage),
        )

    async def answer(request: HttpRequest) -> HttpResponse:
        if not made:
            console = await asyncio.to_thread(make)
            if not made:
                made.append(console)
                stack.callback(console.close)
        found = await made[0](request)
        return HttpResponse(found.status, found.all_headers(), found.body)

    return answer


class _StatusRoute:
    """``/_sagesmith/status``: what `sagesmith status` shows. Opened by the token in server.json."""

    def __init__(self, home: Home, parts: Parts, state: Mapping[str, Any]) -> None:
        self._home = home
        self._parts = parts
        self._state = state

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._state['token']}".encode()):
            return HttpResponse(
                403, {"content-type": "text/plain"}, b"The token of run/server.json opens this."
            )
        body = json.dumps(await asyncio.to_thread(self._status)).encode()
        return HttpResponse(200, {"content-type": "application/json"}, body)

    def _status(self) -> dict[str, Any]:
        import psutil

        kinds = {
            "training jobs": "training-job",
            "transform jobs": "transform-job",
            "endpoints": "endpoint",
            "inference components": "inference-component",
            "notebook instances": "notebook-instance",
        }
        public = {name: value for name, value in self._state.items() if name != "token"}
        return {
            **public,
            "version": __version__,
            "uptime_s": time.time() - self._state["started"],
            "memory_bytes": psutil.Process().memory_info().rss,
            "sandbox": "bubblewrap" if self._parts.fleet.sandboxed else "none",
            "resources": {name: self._parts.resources.count_by_status(kind) for name, kind in kinds.items()},
            "fleet": self._parts.fleet.status(),
        }


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
    aside.replace(path)


def _options(arguments: Sequence[str] | None) -> tuple[Home, Settings]:
    parser = argparse.ArgumentParser(prog="python -m sagesmith.server")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--port")
    parser.add_argument("--http-port")
    parser.add_argument("--host")
    parser.add_argument("--account-id")
    parser.add_argument("--database-url")
    given = vars(parser.parse_args(arguments))
    home = Home.locate(given.pop("home"))
    return home, Settings.load(home, os.environ, **given)


if __name__ == "__main__":
    sys.exit(main())
