"""The calls by which a multi-model container of the user's own is told what to load: the ``/models`` contract.

Source: "Build Your Own Container for SageMaker AI Multi-Model Endpoints", Amazon SageMaker Developer Guide.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

__all__ = ["ContainerRefused", "ModelsApi"]

_LOAD_S: Final = 360.0
_ANSWER_S: Final = 60.0
_PAGE: Final = 100
_LONGEST: Final = 4096


class ContainerRefused(Exception):
    """The container answered with another status than 200; or 0, with none."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class ModelsApi:
    """The container that listens on *host* and *port*. Its methods wait for it: call them in threads."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    def load(self, name: str, folder: str) -> None:
        """Load the model in *folder*, as the container sees it, under *name*; one that is loaded already stays.

        Raises:
            ContainerRefused: 507: there is no memory for it; else it cannot be loaded.
        """
        try:
            self._ask("POST", "/models", {"model_name": name, "url": folder}, timeout_s=_LOAD_S)
        except ContainerRefused as refused:
            if refused.status != http.HTTPStatus.CONFLICT:
                raise

    def unload(self, name: str) -> None:
        """Unload *name*; one that is not loaded is none.

        Raises:
            ContainerRefused: it cannot be unloaded.
        """
        try:
            self._ask("DELETE", f"/models/{quote(name)}")
        except ContainerRefused as refused:
            if refused.status != http.HTTPStatus.NOT_FOUND:
                raise

    def has(self, name: str) -> bool:
        """Whether *name* is loaded.

        Raises:
            ContainerRefused: the container cannot tell.
        """
        try:
            self._ask("GET", f"/models/{quote(name)}")
        except ContainerRefused as refused:
            if refused.status != http.HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def loaded(self) -> Iterator[str]:
        """Yield the names of all models that are loaded, page by page.

        Raises:
            ContainerRefused: the container cannot tell, or what it says is no list of models.
        """
        token = ""
        while True:
            query = urlencode({"limit": _PAGE, **({"next_page_token": token} if token else {})})
            page = self._ask("GET", f"/models?{query}")
            try:
                said = json.loads(page)
                names = [str(model["modelName"]) for model in said["models"]]
                following = str(said.get("nextPageToken") or "")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ContainerRefused(
                    200, f"GET /models is answered with no list of models: {error!r}"
                ) from error
            yield from names
            if not following or following == token:
                return
            token = following

    def _ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = _ANSWER_S) -> bytes:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ContainerRefused(0, f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise ContainerRefused(answer.status, said[:_LONGEST].decode("utf-8", "replace"))
        return said
