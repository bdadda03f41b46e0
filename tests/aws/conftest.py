"""An in-process server on its own thread and loop, and real boto3 clients for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import boto3
import pytest
import uvloop
from botocore.config import Config

from sagesmith.aws import Api, Call, Caller, FastRoute, HttpServer, Key, Limits, RawHandler

ACCOUNT = "123456789012"
KEY = Key(
    "AKIDEXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/admin", "AIDAEXAMPLE", "AKIDEXAMPLE"),
)
TEMPORARY = Key(
    "ASIATEMPORARY",
    "temporary-secret",
    Caller(
        ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/Role/session", "AROAEXAMPLE:session", "ASIATEMPORARY"
    ),
    session_token="the-token/+==",
    expires=4102444800.0,
)
KEYS = {key.access_key_id: key for key in (KEY, TEMPORARY)}


def allow_all(call: Call, request: Mapping[str, Any]) -> None:
    pass


class Running:
    """A server that runs; `client` makes boto3 clients of it."""

    def __init__(
        self,
        handlers: Sequence[object],
        *,
        raw_routes: Mapping[str, RawHandler] | None = None,
        fast_routes: Sequence[FastRoute] = (),
        authorize: Callable[[Call, Mapping[str, Any]], None] = allow_all,
        limits: Limits | None = None,
        inline_reads: bool = True,
    ) -> None:
        self.api = Api(
            handlers,
            keys=KEYS.get,
            authorize=authorize,
            account_id=ACCOUNT,
            default_region="us-east-1",
            inline_reads=inline_reads,
        )
        self.api.check()
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server = HttpServer(self.api, raw_routes=raw_routes, fast_routes=fast_routes, limits=limits)
        self.port = self.run(self.server.start("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def client(self, service: str, key: Key = KEY, **config: Any) -> Any:
        session = boto3.session.Session()
        return session.client(
            service,
            region_name="us-east-1",
            endpoint_url=config.pop("endpoint_url", self.url),
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            aws_session_token=key.session_token,
            config=Config(retries={"max_attempts": 0}, read_timeout=20, proxies={}, **config),
        )

    def close(self) -> None:
        self.run(self.server.close(1.0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(*handlers: object, **options: Any) -> Running:
        running.append(Running(handlers, **options))
        return running[-1]

    yield start
    for one in running:
        one.close()
