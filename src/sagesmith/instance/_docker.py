"""The user's own image on this instance: under which name the engine has it, or where it comes from.

Three kinds of names. One at our registry's address is pulled there, since a tag may have moved. One in the form of
Amazon ECR is taken from the engine if it has an image of that name, else from our registry, which knows repositories by
region and name; the account decides nothing. Any other is taken from the engine, else from the registry it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sagesmith.containers import (
    ContainerError,
    Engine,
    EngineError,
    EngineUnavailable,
    ImageSource,
    Target,
    find_image,
    pull_image,
    runs_as_root,
)
from sagesmith.images import Reference
from sagesmith.instance.spec import InstanceSpec, ServerAddress
from sagesmith.registry_token import USER, make_password

__all__ = ["OwnImage", "server_now"]

_PASSWORD_S: Final = 3600.0


class OwnImage:
    """The image of an instance. `reference` is what the engine knows it by, once `have` has returned."""

    def __init__(self, engine: Engine, spec: InstanceSpec) -> None:
        self._engine = engine
        self._spec = spec
        self.reference = spec.container.image
        self._source, self._is_ours = self._find_source()

    @property
    def as_root(self) -> bool:
        """Whether its programs run as root; False while the engine has no image of that name."""
        return runs_as_root(self._engine, self.reference)

    async def have(self, pulling: Callable[[], None]) -> None:
        """Have the image in the engine; *pulling* is called if it must be pulled.

        Raises:
            ContainerError: there is no engine, or no such image.
        """
        try:
            here = await asyncio.to_thread(find_image, self._engine, self.reference)
            if here and not self._is_ours:
                return
            if not self._source.reference:
                raise EngineError(404, "the Docker engine has none of that name")
            pulling()
            try:
                await pull_image(self._engine, self._source)
            except EngineError as error:
                if not here or isinstance(error, EngineUnavailable):
                    raise
            else:
                self.reference = self._source.reference
        except EngineUnavailable as error:
            raise ContainerError(
                f"cannot run the image {self._spec.container.image!r}: {error}. Start Docker"
            ) from error
        except EngineError as error:
            raise ContainerError(
                f"Cannot pull the image {self._spec.container.image!r}: {error}. Push it to a repository of this server's "
                "ECR, or give it that name in the Docker engine",
                client_error=True,
            ) from error

    def _find_source(self) -> tuple[ImageSource, bool]:
        spec = self._spec
        parsed, registries = Reference.parse(spec.container.image), _registries(spec.server)
        tail = f"@{parsed.digest}" if parsed.digest else f":{parsed.tag}"
        password = make_password(
            spec.role.access_key_id, spec.role.secret_access_key, time.time() + _PASSWORD_S
        )
        if parsed.is_ecr:
            reference = f"{registries[0]}/{parsed.region}/{parsed.repository}{tail}"
            return ImageSource(reference, USER, password), False
        if parsed.registry in registries:
            return ImageSource(spec.container.image, USER, password), True
        # One that names no registry is not looked for at a public one: a typing error must not run a stranger's.
        return ImageSource(spec.container.image if parsed.registry else ""), False


def server_now(server: ServerAddress) -> Target:
    """Return where the server answers at the moment: one that started again may have another port."""
    return Target(str(_state(server).get("url") or server.url), server.ca_file)


def _registries(server: ServerAddress) -> list[str]:
    """The addresses of our registry: those of the server, with and without TLS."""
    state = _state(server)
    return [
        urlsplit(str(url)).netloc for url in (state.get("url") or server.url, state.get("http_url")) if url
    ]


def _state(server: ServerAddress) -> Mapping[str, object]:
    if server.server_file:
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, object] = json.loads(Path(server.server_file).read_text("utf-8"))
            return found
    return {}
