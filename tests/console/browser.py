"""A real Chromium, driven by the WebDriver protocol over HTTP: as much of it as the console's tests need."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.served import free_port

__all__ = ["Browser", "browser", "log_in"]

_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window."""

    def __init__(self, url: str) -> None:
        self._url = url
        options = {
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1",
            ]
        }  # fmt: skip
        capabilities = {
            "browserName": "chrome",
            "acceptInsecureCerts": True,
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "unhandledPromptBehavior": "ignore",
        }
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{answer['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise AssertionError(f"{path}: {value['error']}: {value['message'].splitlines()[0]}") from None

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, self._session + path, body)

    def open(self, url: str) -> None:
        """Go to *url* and wait until it is loaded."""
        self._do("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._do("GET", "/url"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body in the page; a promise is waited for."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def _element(self, selector: str) -> str:
        found = self._do("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])

    def click(self, selector: str) -> None:
        """Click on an element, as a person does: it must be visible. One that a live update has just replaced is found anew."""
        for last in (False, False, True):
            try:
                self._do("POST", f"/element/{self._element(selector)}/click", {})
                return
            except AssertionError as error:
                if last or "stale element" not in str(error):
                    raise

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in a field; for a file field, name the file."""
        element = self._element(selector)
        if self.run("return document.querySelector(arguments[0]).type", selector) != "file":
            self._do("POST", f"/element/{element}/clear", {})
        self._do("POST", f"/element/{element}/value", {"text": text})

    def cookie(self, name: str) -> str:
        """Return the value of a cookie that goes with this page's requests, whoever may read it; "" for none."""
        found = self._do("GET", "/cookie")
        return next((str(each["value"]) for each in found if each["name"] == name), "")

    def put_cookie(self, name: str, value: str) -> None:
        """Give the browser a cookie for the whole of this page's address."""
        self._do("POST", "/cookie", {"cookie": {"name": name, "value": value, "path": "/"}})

    def accept(self) -> None:
        """Say yes to the question that the page asks."""
        self._do("POST", "/alert/accept", {})

    def text(self, selector: str = "body") -> str:
        """Return the text of an element as a person sees it."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def wait(self, selector: str, words: str, *, timeout_s: float = 60) -> str:
        """Wait until *words* stand in the element; return its text."""
        deadline = time.monotonic() + timeout_s
        while words not in (text := self.text(selector)):
            assert time.monotonic() < deadline, f"{words!r} did not come into {selector}: {text!r}"
            time.sleep(0.1)
        return text

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the window's size and the colours that the person prefers."""
        cdp = "/goog/cdp/execute"
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._do("POST", cdp, {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._do("POST", cdp, {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a file."""
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def errors(self) -> list[str]:
        """Return what the browser's console has complained about since the last call."""
        logged = self._do("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in logged if entry["level"] in ("SEVERE", "WARNING")]

    def accessibility(self) -> list[str]:
        """Return what axe-core finds wrong with the page, in words."""
        spec = find_spec("axe_core_python")
        if spec is None or spec.origin is None:
            pytest.skip("axe-core-python is not installed.")
        if not self.run("return 'axe' in window"):
            source = (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")
            self.run(source + "\nreturn null")
        found = self.run("return axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
        return [
            f"{each['id']} ({each['impact']}): {each['help']}: {each['nodes'][0]['html'][:150]}"
            for each in found
        ]

    def close(self) -> None:
        """End it."""
        self._do("DELETE", "")


def log_in(window: Browser, page: str, key_id: str, secret: str) -> None:
    """Go to a page of the console, which asks for the keys, and give them; return when it shows what follows."""
    window.open(page)
    assert window.url.endswith("/login")
    window.type("#key_id", key_id)
    window.type("#secret", secret)
    window.click("main button")
    window.wait("h1", "Overview")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium and its driver; skip the test where they are not installed."""
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("Chromium and chromedriver are not installed.")
    port = free_port()
    process = subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(url + "/status", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        window = Browser(url)
        try:
            yield window
        finally:
            window.close()
    finally:
        process.terminate()
        process.wait(10)
