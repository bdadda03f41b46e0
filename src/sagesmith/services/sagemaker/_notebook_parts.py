"""What notebook instances are put together from: lifecycle configurations and code repositories."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.errors import validation_error
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import CODE_REPOSITORY, NOTEBOOK_INSTANCE, NOTEBOOK_LIFECYCLE_CONFIG
from sagesmith.store.resources import ListQuery

__all__ = ["CodeRepositoryHandlers", "NotebookLifecycleConfigHandlers"]

_SCRIPTS = ("OnCreate", "OnStart")


class NotebookLifecycleConfigHandlers:
    """Scripts that run when a notebook is created and whenever it starts."""

    service = "sagemaker"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation("CreateNotebookInstanceLifecycleConfig")
    def create_config(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the scripts."""
        _check_scripts(request)
        if not request["NotebookInstanceLifecycleConfigName"]:
            raise validation_error("NotebookInstanceLifecycleConfigName must not be empty.")
        resource = self._engine.create(call, NOTEBOOK_LIFECYCLE_CONFIG, request, request)
        return {NOTEBOOK_LIFECYCLE_CONFIG.arn_member: resource.arn}

    @operation("DescribeNotebookInstanceLifecycleConfig", inline=True)
    def describe_config(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the scripts."""
        return self._engine.describe(call, NOTEBOOK_LIFECYCLE_CONFIG, request)

    @operation("ListNotebookInstanceLifecycleConfigs", inline=is_page)
    def list_configs(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of configurations."""
        return self._engine.list(call, NOTEBOOK_LIFECYCLE_CONFIG, request)

    @operation("UpdateNotebookInstanceLifecycleConfig")
    def update_config(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the scripts; notebooks run the new ones at their next start."""
        _check_scripts(request)
        self._engine.replace_members(call, NOTEBOOK_LIFECYCLE_CONFIG, request)
        return {}

    @operation("DeleteNotebookInstanceLifecycleConfig")
    def delete_config(self, call: Call, request: Mapping[str, Any]) -> None:
        """Forget a configuration that no notebook has."""
        name = request["NotebookInstanceLifecycleConfigName"]
        found = self._engine.find(call, NOTEBOOK_LIFECYCLE_CONFIG, name)
        where = {"NotebookInstanceLifecycleConfigName": name}
        users = self._engine.resources.list(
            NOTEBOOK_INSTANCE.arn, call.region, ListQuery(where=where, limit=3)
        )
        if users.items:
            names = ", ".join(user.name for user in users.items)
            raise validation_error(
                f"Lifecycle configuration ({found.arn}) is used by notebook instances: {names}. Disassociate it from "
                "them with UpdateNotebookInstance first."
            )
        self._engine.delete(call, NOTEBOOK_LIFECYCLE_CONFIG, request)


class CodeRepositoryHandlers:
    """Git repositories that notebooks are given a clone of."""

    service = "sagemaker"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation("CreateCodeRepository")
    def create_code_repository(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store where the repository is."""
        return {"CodeRepositoryArn": self._engine.create(call, CODE_REPOSITORY, request, request).arn}

    @operation("DescribeCodeRepository", inline=True)
    def describe_code_repository(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return where the repository is."""
        return self._engine.describe(call, CODE_REPOSITORY, request)

    @operation("ListCodeRepositories", inline=is_page)
    def list_code_repositories(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of repositories."""
        return self._engine.list(call, CODE_REPOSITORY, request)

    @operation("UpdateCodeRepository")
    def update_code_repository(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change the secret that opens the repository."""
        return {"CodeRepositoryArn": self._engine.replace_members(call, CODE_REPOSITORY, request).arn}

    @operation("DeleteCodeRepository")
    def delete_code_repository(self, call: Call, request: Mapping[str, Any]) -> None:
        """Forget the repository; clones of it stay where they are."""
        self._engine.delete(call, CODE_REPOSITORY, request)


def _check_scripts(request: Mapping[str, Any]) -> None:
    """Refuse scripts that are not base64 of UTF-8 text.

    Raises:
        AwsError: `ValidationException`.
    """
    for member in _SCRIPTS:
        for script in request.get(member) or ():
            try:
                base64.b64decode(script.get("Content") or "", validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                raise validation_error(
                    f"The content of {member} must be a shell script as base64-encoded UTF-8 text."
                ) from None
