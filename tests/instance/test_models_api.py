"""The calls to multi-model containers, against a container that keeps the contract, and some that do not."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest

from sagesmith.instance._models_api import ContainerRefused, ModelsApi


class Contract(http.server.BaseHTTPRequestHandler):
    """Holds three models, tells of one a page."""

    models: ClassVar[dict[str, str]] = {}
    nonsense = False

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path != "/models":
            self.answer(200 if path[8:] in self.models else 404, {})
            return
        at, names = int(dict(parse_qsl(query)).get("next_page_token", "0")), list(self.models)
        more = {"nextPageToken": str(at + 1)} if at + 1 < len(names) else {}
        self.answer(
            200, [] if self.nonsense else {"models": [{"modelName": n} for n in names[at : at + 1]], **more}
        )

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["model_name"]
        status = 409 if name in self.models else 507 if len(self.models) == 3 else 200
        if status == 200:
            self.models[name] = asked["url"]
        self.answer(status, {"why": "no room"} if status == 507 else {})

    def do_DELETE(self) -> None:
        self.answer(200 if self.models.pop(self.path[8:], None) else 404, {})

    def answer(self, status: int, said: Any) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def container() -> Iterator[type[Contract]]:
    handler = type("Handler", (Contract,), {"models": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.port = server.server_address[1]  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_contract(container: type[Contract]) -> None:
    api = ModelsApi("127.0.0.1", container.port)  # type: ignore[attr-defined]
    assert list(api.loaded()) == []
    for name in ("a", "b", "c", "a"):
        api.load(name, f"/opt/ml/models/{name}/model")
    assert container.models == {name: f"/opt/ml/models/{name}/model" for name in "abc"}
    assert list(api.loaded()) == ["a", "b", "c"]
    with pytest.raises(ContainerRefused, match="no room") as caught:
        api.load("d", "")
    assert caught.value.status == 507
    api.unload("b")
    api.unload("b")
    assert [api.has(name) for name in "abc"] == [True, False, True]
    container.nonsense = True
    with pytest.raises(ContainerRefused, match="no list of models"):
        list(api.loaded())


def test_a_container_that_is_not_there(container: type[Contract]) -> None:
    with pytest.raises(ContainerRefused, match="POST /models: ") as caught:
        ModelsApi("127.0.0.1", 1).load("a", "")
    assert caught.value.status == 0
