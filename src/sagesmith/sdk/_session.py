"""Where requests go, and as whom: one session for everything that follows.

A session finds its server as boto3 does: by arguments, environment (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...) and
configuration files. Where none of these says anything, it takes the Sagesmith server that runs on this machine.
Every request goes through `Session.call`, which translates errors; nothing but the public AWS API is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from sagesmith.sdk._errors import NameInUse, NotFound, SdkError, translated
from sagesmith.sdk._local import find

if TYPE_CHECKING:
    from types import TracebackType

    import boto3

__all__ = ["Session", "default_session"]

_ENVIRONMENT: Final = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                       "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE")  # fmt: skip
_ASSUMED: Final = re.compile(
    r"arn:(?P<partition>[\w-]+):sts::(?P<account>\d+):assumed-role/(?P<role>[\w+=,.@-]+)/"
)


class Session:
    """A server, keys, a bucket and a role.

    As a context manager it deletes, at its end, the endpoints, models and uploaded data that were made through it.
    One session may be used by several threads.

    Args:
        boto_session: its keys and region are used; else boto3's own search.
        endpoint_url: the server's address; else `AWS_ENDPOINT_URL`, else AWS, or the local server.
        region: else boto3's, else the local server's.
        profile: a profile of the AWS configuration files.
        home: use the Sagesmith server of this home folder.
        ca_bundle: file of the certificates to trust; else `AWS_CA_BUNDLE`.
        bucket: where data and models go; else `sagemaker-{region}-{account}`, made when it is needed.
        prefix: what all keys in the bucket begin with.
        role: the execution role's name or ARN; else `SAGEMAKER_ROLE`, else that of the keys, else Sagesmith's.
    """

    def __init__(
        self,
        boto_session: boto3.Session | None = None,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        home: str | os.PathLike[str] | None = None,
        ca_bundle: str | None = None,
        bucket: str | None = None,
        prefix: str = "",
        role: str | None = None,
    ) -> None:
        import boto3

        local = None
        if home is not None:
            local = find(home)
            if local is None:
                raise SdkError(
                    f"No Sagesmith server runs for the home folder {os.fspath(home)}. Start one with `sagesmith up`."
                )
        elif boto_session is None and not (endpoint_url or profile or any(map(os.environ.get, _ENVIRONMENT))):
            bare = boto3.Session()
            if bare.get_credentials() is None or os.environ.get("SAGESMITH_HOME"):
                local = find()
        if local is not None:
            self._boto = boto3.Session(
                aws_access_key_id=local.access_key_id,
                aws_secret_access_key=local.secret_access_key,
                region_name=region or local.region,
            )
            endpoint_url, ca_bundle = local.url, ca_bundle or str(local.ca_file)
        else:
            self._boto = boto_session or boto3.Session(region_name=region, profile_name=profile)
        self._endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or None
        self._ca_bundle = ca_bundle
        found = region or self._boto.region_name or os.environ.get("AWS_REGION")
        if not found and self._endpoint_url and "amazonaws.com" not in self._endpoint_url:
            found = "us-east-1"
        if not found:
            raise SdkError("There is no region: set AWS_REGION, or give `Session(region=...)`.")
        self.region: str = found
        self._bucket, self._role = bucket, role
        self.prefix = prefix.strip("/")
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._identity: dict[str, str] | None = None
        self._made: list[Callable[[], None]] = []

    # ---- requests --------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The server's address, ``https://...amazonaws.com`` for AWS."""
        return self._endpoint_url or f"https://api.sagemaker.{self.region}.amazonaws.com"

    @property
    def is_aws(self) -> bool:
        """Whether requests go to AWS itself."""
        return "amazonaws.com" in self.url

    def client(self, service: str) -> Any:
        """Return the boto3 client of *service*, such as ``sagemaker``."""
        with self._lock:
            if service not in self._clients:
                from botocore.config import Config

                try:
                    self._clients[service] = self._boto.client(
                        service,
                        endpoint_url=self._endpoint_url,
                        region_name=self.region,
                        verify=self._ca_bundle,
                        config=Config(
                            retries={"mode": "standard", "max_attempts": 4},
                            connect_timeout=10,
                            max_pool_connections=16,
                            user_agent_extra="sagesmith-sdk",
                            # Presigned URLs are of version 2 otherwise, which signs the content type too.
                            signature_version="s3v4" if service == "s3" else None,
                        ),
                    )
                except Exception as error:
                    self._raise(error, f"client of {service}")
            return self._clients[service]

    def call(self, service: str, operation: str, /, **request: Any) -> dict[str, Any]:
        """Call an operation, such as ``call("sagemaker", "describe_endpoint", EndpointName="x")``.

        Raises:
            SdkError: it was refused, or nothing answers; the original error is the cause.
        """
        client = self.client(service)
        try:
            answer: dict[str, Any] = getattr(client, operation)(**request)
        except Exception as error:
            self._raise(error, operation)
        return answer

    def pages(self, service: str, operation: str, key: str, /, **request: Any) -> Iterator[dict[str, Any]]:
        """Yield the items that an operation lists under *key*, page after page."""
        try:
            for page in self.client(service).get_paginator(operation).paginate(**request):
                yield from page.get(key, ())
        except Exception as error:
            self._raise(error, operation)

    def _raise(self, error: Exception, operation: str) -> Any:
        meant = translated(error, operation=operation, url=self.url)
        if meant is error:
            raise error
        raise meant from error

    # ---- account, role, bucket -------------------------------------------------------------------------

    def identity(self) -> dict[str, str]:
        """Return the caller's ``Account`` and ``Arn``."""
        if self._identity is None:
            answer = self.call("sts", "get_caller_identity")
            self._identity = {"Account": answer["Account"], "Arn": answer["Arn"]}
        return self._identity

    @property
    def role(self) -> str:
        """The execution role's ARN.

        Raises:
            SdkError: none was given, and none can be told from the keys.
        """
        given = self._role or os.environ.get("SAGEMAKER_ROLE")
        if given and given.startswith("arn:"):
            return given
        identity = self.identity()
        if given:
            return f"{identity['Arn'].split(':sts:')[0].split(':iam:')[0]}:iam::{identity['Account']}:role/{given}"
        assumed = _ASSUMED.match(identity["Arn"])
        if assumed:
            found: str = self.call("iam", "get_role", RoleName=assumed["role"])["Role"]["Arn"]
            return found
        if self.is_aws:
            raise SdkError("There is no execution role: give `Session(role=...)`, or set SAGEMAKER_ROLE.")
        return f"arn:aws:iam::{identity['Account']}:role/SagesmithExecutionRole"

    @property
    def bucket(self) -> str:
        """The bucket for data and models; made if it is not there."""
        with self._lock:
            if self._bucket is None:
                name = f"sagemaker-{self.region}-{self.identity()['Account']}"
                self.ensure_bucket(name)
                self._bucket = name
            return self._bucket

    def ensure_bucket(self, name: str) -> None:
        """Make the bucket *name* unless it is there."""
        try:
            self.call("s3", "head_bucket", Bucket=name)
        except NotFound:
            where = {} if self.region == "us-east-1" else {
                "CreateBucketConfiguration": {"LocationConstraint": self.region}
            }  # fmt: skip
            with contextlib.suppress(NameInUse):  # another made it meanwhile
                self.call("s3", "create_bucket", Bucket=name, **where)

    def s3_uri(self, *parts: str) -> str:
        """Return a URI in the session's bucket, below its prefix."""
        return "s3://" + "/".join((self.bucket, *(part.strip("/") for part in (self.prefix, *parts) if part)))

    @staticmethod
    def unique_name(base: str, *, longest: int = 63) -> str:
        """Return a name for a job or an endpoint: *base* and the time, to the millisecond."""
        stem = re.sub(r"[^A-Za-z0-9]+", "-", base).strip("-") or "job"
        now = datetime.now(UTC)
        end = now.strftime("-%Y-%m-%d-%H-%M-%S-") + f"{now.microsecond // 1000:03d}"
        time.sleep(0.001)  # so that the next name is another
        return stem[: longest - len(end)].rstrip("-") + end

    # ---- what was made ---------------------------------------------------------------------------------

    def made(self, delete: Callable[[], None]) -> None:
        """Note how to delete something that was made; `close` calls it."""
        self._made.append(delete)

    def close(self) -> None:
        """Delete what was made through this session: endpoints, models and uploaded data, the newest first.

        Raises:
            SdkError: the last of the errors, if some could not be deleted; the others were.
        """
        trouble: SdkError | None = None
        while self._made:
            delete = self._made.pop()
            try:
                delete()
            except NotFound:
                continue
            except SdkError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({self.url!r}, region={self.region!r})"


_default: Session | None = None
_default_lock = threading.Lock()


def default_session() -> Session:
    """Return the session of those who give none; made at the first call."""
    global _default  # noqa: PLW0603
    with _default_lock:
        if _default is None:
            _default = Session()
        return _default
