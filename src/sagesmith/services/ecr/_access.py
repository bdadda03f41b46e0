"""Who speaks to the registry, and whether it may: the passwords of `GetAuthorizationToken`, and ECR's actions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sagesmith.aws import Call, Caller
from sagesmith.aws.call import Key
from sagesmith.clock import Clock
from sagesmith.registry_token import USER, check_password, named_key
from sagesmith.store.registry import Registry, place_of
from sagesmith.store.resources import Resource

__all__ = ["Access", "Authorize", "Refused"]

Authorize = Callable[[Call, Mapping[str, Any]], None]


class Refused(Exception):
    """The request cannot be done: the status, and the specification's code."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class Access:
    """Decides by the keys that *find_key* finds, and by *authorize*. Thread-safe."""

    def __init__(
        self,
        registry: Registry,
        find_key: Callable[[str], Key | None],
        authorize: Authorize,
        account_id: str,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._find_key = find_key
        self._authorize = authorize
        self._account_id = account_id
        self._clock = clock

    def caller(self, call: Call) -> Caller:
        """Return whose password the request carries.

        Raises:
            Refused: it carries none, or one that is not good (any more).
        """
        scheme, _, text = call.headers.get("authorization", "").partition(" ")
        host = call.endpoint_url.partition("://")[2]
        challenge = {"WWW-Authenticate": f'Basic realm="https://{host}/",service="ecr.amazonaws.com"'}
        if not text:
            raise Refused(
                401,
                "UNAUTHORIZED",
                "log in first: aws ecr get-login-password | docker login ...",
                **challenge,
            )
        try:
            user, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, password = "", ""
        key = self._find_key(named_key(password)) if scheme.lower() == "basic" and user == USER else None
        now = self._clock()
        if (
            key is None
            or not check_password(password, key.secret_access_key, now)
            or (key.expires is not None and key.expires < now)
        ):
            raise Refused(
                401, "UNAUTHORIZED", "Your authorization token is invalid or has expired. Log in again.",
                **challenge,
            )  # fmt: skip
        return key.caller

    def repository(self, call: Call, name: str, action: str, *, pull: bool = False) -> Resource:
        """Return the repository of that path, if the caller may do *action* there.

        Raises:
            Refused: there is none.
            AwsError: the caller may not.
        """
        region, plain = place_of(name, self._registry.region)
        self._authorize(replace(call, operation=action, region=region), {"repositoryName": plain})
        find = self._registry.locate if pull else self._registry.repository
        found = find(region, plain)
        if found is None:
            raise Refused(
                404,
                "NAME_UNKNOWN",
                f"The repository with name '{plain}' does not exist in the registry with id '{self._account_id}'",
            )
        return found
