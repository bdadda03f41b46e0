"""An endpoint's instance with many models in one container of the user's own.

The gateway asks as it does of `MultiModel`. Here a model is unpacked to ``/opt/ml/models/NAME/model``, where NAME is made
of its key, the container is told to load it (`ModelsApi`), and answers at ``/models/NAME/invoke``. When the
container ends and is started again it has no models, and neither has the address that is then said to be ready.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Final

from sagesmith.containers import ContainerPlan
from sagesmith.instance import _artifacts
from sagesmith.instance._host import Host
from sagesmith.instance._layout import open_to_all
from sagesmith.instance._model_orders import Answer, LoadError, ModelOrders, model_uri, ready_address
from sagesmith.instance._models_api import ContainerRefused, ModelsApi
from sagesmith.instance._objects import DataError, split_uri
from sagesmith.instance._serving import Serving
from sagesmith.instance.spec import Ready, ServingTask

__all__ = ["OwnMultiModel"]

_NO_MEMORY: Final = 507


class OwnMultiModel(Serving):
    """Runs one :class:`ServingTask` with `many` and an image of the user's own."""

    def __init__(self, host: Host, task: ServingTask) -> None:
        super().__init__(host, replace(task, model_data=""))
        self._many = task
        self._starts = 0
        self._loading: dict[str, asyncio.Task[Answer]] = {}
        self._asked: set[str] = set()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._orders: ModelOrders | None = None

    async def _serve_once(self) -> str:
        """Start the container, without models, and whoever takes orders for it."""
        self._starts += 1
        self._loading.clear()
        shutil.rmtree(self._models_folder, ignore_errors=True)
        self._models_folder.mkdir(parents=True)
        path = f"{self._host.node.socket_folder or self._host.folder / 'run'}/m{self._starts}.sock"
        Path(path).parent.mkdir(exist_ok=True)
        self._orders = ModelOrders(path, self.load, self.unload, self._asked.clear)
        await self._orders.open()
        try:
            return await super()._serve_once()
        finally:
            self._orders.close()

    @property
    def _ready(self) -> Ready:
        path = self._orders.path if self._orders is not None else ""
        return Ready(ready_address(path, cached=self._many.cached))

    def _plan(self) -> ContainerPlan:
        plan = super()._plan()
        return replace(plan, environment={**plan.environment, "SAGEMAKER_MULTI_MODEL": "true"})

    # ---- models ------------------------------------------------------------------------------------------

    async def load(self, name: str) -> Answer:
        """Return where the model *name* answers, once it does, and how long it took to fetch.

        Raises:
            LoadError: there is no such model, no memory for it, or the container does not load it.
        """
        uri = model_uri(self._many.model_data, name)
        self._asked.add(_label(name))
        loading = self._loading.get(name)
        if loading is not None and loading.done() and not await self._still_loaded(name, loading):
            loading = None
        if loading is None:
            loading = self._loading[name] = asyncio.create_task(self._load(name, uri))
        try:
            return await asyncio.shield(loading)
        except LoadError:
            if self._loading.get(name) is loading:
                del self._loading[name]
            raise

    async def unload(self, name: str) -> None:
        """Have the container unload *name*, and remove its files."""
        self._loading.pop(name, None)
        async with self._turns[name]:  # or a load that was asked for next might be done first
            await self._remove(_label(name))

    async def _still_loaded(self, name: str, loading: asyncio.Task[Answer]) -> bool:
        if loading.cancelled() or loading.exception() is not None:
            return False
        try:
            return await asyncio.to_thread(self._api.has, _label(name))
        except ContainerRefused:
            return False

    async def _load(self, name: str, uri: str) -> Answer:
        async with self._turns[name]:
            return await self._load_now(name, uri)

    async def _load_now(self, name: str, uri: str) -> Answer:
        label, began = _label(name), time.monotonic()
        folder = self._models_folder / label / "model"
        if not folder.exists():
            await asyncio.to_thread(self._fetch, uri, folder)
        fetched = time.monotonic()
        inside = f"/opt/ml/models/{label}/model"
        try:
            await self._told_to_load(label, inside)
        except ContainerRefused as refused:
            if refused.status != _NO_MEMORY:
                shutil.rmtree(folder.parent, ignore_errors=True)
            status = refused.status if refused.status == _NO_MEMORY else 500
            raise LoadError(status, str(refused) or f"the container answered {refused.status}") from refused
        place = self._address.removeprefix("http:")
        return Answer(f"http:{place}/models/{label}/invoke", fetched - began)

    async def _told_to_load(self, label: str, inside: str) -> None:
        try:
            await asyncio.to_thread(self._api.load, label, inside)
        except ContainerRefused as refused:
            # Whoever asked before a server's restart may have left models that nobody else would unload.
            if refused.status != _NO_MEMORY or not await self._forget_what_nobody_asked_for():
                raise
            await asyncio.to_thread(self._api.load, label, inside)

    async def _forget_what_nobody_asked_for(self) -> bool:
        try:
            left = [
                each
                for each in await asyncio.to_thread(lambda: list(self._api.loaded()))
                if each not in self._asked
            ]
        except ContainerRefused:
            return False
        for label in left:
            await self._remove(label)
            self._loading = {name: each for name, each in self._loading.items() if _label(name) != label}
        return bool(left)

    async def _remove(self, label: str) -> None:
        try:
            await asyncio.to_thread(self._api.unload, label)
        except ContainerRefused as refused:
            self._log.note(f"WARNING: a model could not be unloaded: {refused}")
        await asyncio.to_thread(shutil.rmtree, self._models_folder / label, True)

    def _fetch(self, uri: str, folder: Path) -> None:
        host = self._host
        bucket, key = split_uri(uri)
        archive = folder.with_suffix(".tar.gz")
        archive.parent.mkdir(parents=True, exist_ok=True)
        try:
            if host.objects.head(bucket, key) is None:
                raise LoadError.absent(bucket, key)
            host.objects.get(bucket, key, archive, link=True)
            _artifacts.unpack(archive, folder, uri)
        except DataError as error:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise LoadError(500, str(error)) from error
        except LoadError:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise
        archive.unlink()
        if host.own_image is not None and not host.own_image.as_root:
            open_to_all(folder.parent)

    @property
    def _models_folder(self) -> Path:
        return self._host.folder / "ml" / "models"

    @property
    def _api(self) -> ModelsApi:
        host, _, port = self._address.removeprefix("http:").rpartition(":")
        return ModelsApi(host, int(port))


def _label(name: str) -> str:
    """Return the name under which the container knows the model *name*, which may hold slashes and more."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]
