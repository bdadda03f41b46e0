"""A server with IAM, STS and a few operations to be allowed or refused, and boto3 clients of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import uvloop
from botocore.config import Config

from sagesmith.aws import Api, Call, HttpServer, operation
from sagesmith.clock import Clock
from sagesmith.services import iam, sts
from sagesmith.store.database import Database
from sagesmith.store.identities import Identities
from sagesmith.store.principals import AccessKey

ACCOUNT = "123456789012"
SESSION = boto3.session.Session()
"""Shared, as it keeps the service models once they are read."""


class SageMaker:
    """Stands in for SageMaker: does nothing, once it is allowed to."""

    service = "sagemaker"

    @operation("CreateTrainingJob")
    def create_training_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"TrainingJobArn": call.arn(f"training-job/{request['TrainingJobName']}")}

    @operation("DescribeTrainingJob", inline=True)
    def describe_training_job(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"TrainingJobName": request["TrainingJobName"]}

    @operation("ListTrainingJobs", inline=True)
    def list_training_jobs(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"TrainingJobSummaries": []}


class Account:
    """One account and its server. `client` makes boto3 clients, of the administrator unless a key is given."""

    def __init__(self, folder: Path, *, strict: bool = False, clock: Clock | None = None) -> None:
        self.database = Database(f"sqlite:///{folder}/account.db")
        self.database.migrate()
        more: dict[str, Any] = {} if clock is None else {"clock": clock}
        self.identities = Identities(self.database, ACCOUNT, **more)
        self.administrator = self.identities.ensure_administrator()
        self.authorizer = iam.IamAuthorizer(self.identities, ACCOUNT, strict)
        api = Api(
            [
                *iam.handlers(self.identities, self.authorizer, strict=strict),
                *sts.handlers(self.identities, self.authorizer, strict=strict),
                SageMaker(),
            ],
            keys=iam.IdentityKeys(self.identities).find,
            authorize=self.authorizer,
            account_id=ACCOUNT,
            default_region="us-east-1",
        )
        api.check()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = HttpServer(api)
        self._port = self._run(self._server.start("127.0.0.1", 0))

    def client(self, service: str, key: AccessKey | Mapping[str, Any] | None = None) -> Any:
        """Return a client that signs with *key*: one of the store, or what an operation of AWS returned."""
        key = key or self.administrator
        if isinstance(key, Mapping):
            names = (key["AccessKeyId"], key["SecretAccessKey"], key.get("SessionToken"))
        else:
            names = (key.access_key_id, key.secret_access_key, key.session_token)
        return SESSION.client(
            service,
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id=names[0],
            aws_secret_access_key=names[1],
            aws_session_token=names[2],
            config=Config(retries={"max_attempts": 0}, read_timeout=20, proxies={}),
        )

    def user(self, name: str, *policies: str) -> AccessKey:
        """Make a user with inline *policies* and return a key of it."""
        inline = {f"policy{number}": text for number, text in enumerate(policies)}
        self.identities.create_principal("user", name, inline=inline)
        return self.identities.create_key(name)

    def close(self) -> None:
        self._run(self._server.close(1.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.database.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
