"""The console in a real browser, on a real server."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest

from sagesmith import Estimator, Session
from tests.console.browser import Browser, browser, log_in
from tests.e2e.served import Served

CONSOLE = "/_sagesmith/console"
PAGE_LIMIT = 200_000


class Http:
    """A plain client, for what browsers do not let one see."""

    def __init__(self, served: Served) -> None:
        self._context = ssl.create_default_context(cafile=served.ca_file)
        self._port = served.port

    def ask(
        self, method: str, path: str, form: dict[str, str] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=60)
        try:
            body = None if form is None else urlencode(form)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, CONSOLE + path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def keys(served: Served) -> dict[str, str]:
    found = json.loads((served.home / "credentials.json").read_text("utf-8"))
    return {"key_id": found["AccessKeyId"], "secret": found["SecretAccessKey"]}


@pytest.fixture(scope="module")
def trained(served: Served) -> Iterator[Estimator]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame["a"] > 0).astype(int)
    with Session(home=served.home, bucket="console-test") as session:
        session.ensure_bucket("console-test")
        estimator = Estimator(
            "xgboost", session=session, objective="binary:logistic", num_round=15, name="shown"
        )
        estimator.fit(frame.iloc[:150], validation=frame.iloc[150:], target="y", progress=False)
        estimator.deploy(progress=False)
        estimator.transformer().transform(frame[["a", "b", "c"]], job_name="scored", progress=False)
        other = Estimator("xgboost", session=session, objective="binary:logistic", num_round=5, max_depth=2)
        other.fit(frame, target="y", job_name="other-job", progress=False)
        with ThreadPoolExecutor(8) as pool:
            for done in [
                pool.submit(
                    session.call,
                    "s3",
                    "put_object",
                    Bucket="console-test",
                    Key=f"many/{i:04d}.txt",
                    Body=b"x",
                )
                for i in range(1000)
            ]:
                done.result()
        session.ensure_bucket("console-empty")
        yield estimator


@pytest.fixture(scope="module")
def window(served: Served, keys: dict[str, str]) -> Iterator[Browser]:
    with browser() as found:
        found.open(f"{served.url}{CONSOLE}/")
        found.type("#key_id", keys["key_id"])
        found.type("#secret", "wrong" * 8)
        found.click("main button")
        found.wait("section [role=alert]", "secret key is not the access key's")
        found.errors()  # the refused login is one, rightly
        log_in(found, f"{served.url}{CONSOLE}/", keys["key_id"], keys["secret"])
        yield found


def test_nobody_sees_a_page_without_login(served: Served, keys: dict[str, str]) -> None:
    client = Http(served)
    for path in (
        "/",
        "/jobs",
        "/jobs/x",
        "/endpoints",
        "/transforms",
        "/transforms/x",
        "/s3",
        "/settings",
        "/models",
    ):
        status, headers, _ = client.ask("GET", path)
        assert (status, headers["location"]) == (303, f"{CONSOLE}/login")
    assert client.ask("GET", "/events")[0] == 401
    assert client.ask("POST", "/login", keys, origin="https://evil.example")[2].count("another site") == 1
    status, headers, _ = client.ask("POST", "/login", keys)
    cookie = headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Secure"} <= {part.strip() for part in cookie.split(";")}
    assert status == 303
    visit = cookie.partition(";")[0]
    status, headers, page = client.ask("GET", "/settings", cookie=visit)
    assert status == 200
    assert keys["secret"] not in page
    assert "script-src 'self'" in headers["content-security-policy"]
    assert client.ask("POST", "/logout", {"token": "guessed"}, cookie=visit)[0] == 403
    token = page.partition('name="token" value="')[2].partition('"')[0]
    assert (
        client.ask("POST", "/logout", {"token": token}, cookie=visit, origin="https://evil.example")[0] == 403
    )
    assert client.ask("POST", "/logout", {"token": token}, cookie=visit)[0] == 303
    assert client.ask("GET", "/settings", cookie=visit)[0] == 303
    assert client.ask("GET", "/static/..%2f_app.py")[0] == 404


def test_another_user_sees_what_his_keys_allow(served: Served) -> None:
    iam = served.client("iam")
    iam.create_user(UserName="visitor")
    key = iam.create_access_key(UserName="visitor")["AccessKey"]
    client = Http(served)
    form = {"key_id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    visit = client.ask("POST", "/login", form)[1]["set-cookie"].partition(";")[0]
    status, _, page = client.ask("GET", "/jobs", cookie=visit)
    assert status == 403
    assert "may not do this" in page


def test_every_page(served: Served, trained: Estimator, window: Browser) -> None:
    """No complaint of the browser, none of axe-core, nothing wider than a phone, no page too heavy."""
    assert trained.job is not None
    assert trained.predictor is not None
    job = trained.job.name
    model = trained.session.call("sagemaker", "list_models", NameContains="xgboost")["Models"][0]["ModelName"]
    pages = {
        "overview": "/", "jobs": "/jobs", "job": f"/jobs/{job}", "clone": f"/jobs/{job}/clone", "none": "/jobs?name=zzz",
        "compare": f"/compare?job={job}&job=other-job", "models": "/models", "endpoints": "/endpoints",
        "endpoint": f"/endpoints/{trained.predictor.name}", "transforms": "/transforms", "transform": "/transforms/scored",
        "transform-clone": "/transforms/scored/clone",
        "model": f"/models/{model}", "buckets": "/s3", "folder": "/s3/console-test",
        "many": "/s3/console-test?prefix=many/", "empty": "/s3/console-empty",
        "object": f"/s3/console-test/object?key={job}/input/train/train.parquet", "notebooks": "/notebooks", "settings": "/settings",
    }  # fmt: skip
    shots = os.environ.get("SAGESMITH_SCREENSHOTS")
    for name, path in pages.items():
        window.look(width=1280)
        window.open(served.url + CONSOLE + path)
        assert window.text("h1"), name
        assert window.run("return document.documentElement.outerHTML.length") < PAGE_LIMIT, name
        for width, dark in ((1280, False), (390, False), (390, True)):
            window.look(width=width, dark=dark)
            assert window.accessibility() == [], (name, width, dark)
            assert window.run("return document.documentElement.scrollWidth") <= width, (name, width)
            if shots:
                window.screenshot(Path(shots) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
        assert window.errors() == [], name
    window.look(width=1280)


def test_a_running_job_is_watched_stopped_and_cloned(
    served: Served, trained: Estimator, window: Browser
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 30))
    long = Estimator(
        "xgboost", session=trained.session, num_round=20_000, max_depth=8, nthread=1, name="long"
    )
    long.fit((rows, rows[:, 0]), wait=False)
    assert long.job is not None
    window.open(f"{served.url}{CONSOLE}/jobs/{long.job.name}")
    window.wait("#log", "train-rmse")
    window.wait("#metrics", "train:rmse")
    before = window.text("#log")
    window.wait("#status", "InProgress")
    deadline = 0
    while window.text("#log") == before:
        deadline += 1
        assert deadline < 200, "the log stood still"
    window.click("form[data-sure] button")
    window.accept()
    window.wait("#status", "Stopped", timeout_s=90)
    window.click("a[href$=clone]")
    window.type("#new_name", "cloned")
    window.run("document.querySelector('input[name=value][aria-label=\"Value of num_round\"]').value = '3'")
    window.click("main form button")
    window.wait("h1", "cloned")
    window.wait("#status", "Completed", timeout_s=90)
    assert "2" in window.wait("#log", "[2]")
    assert window.errors() == []


def test_an_endpoint_is_tried(served: Served, trained: Estimator, window: Browser) -> None:
    assert trained.predictor is not None
    window.open(f"{served.url}{CONSOLE}/endpoints/{trained.predictor.name}")
    window.type("#body", "1.5,0,0")
    window.click("form[action*=try] button")
    assert "text/csv" in window.wait("#answer", "ms:")
    assert float(window.text("#answer pre")) > 0.5
    window.type("#body", "one")
    window.click("form[action*=try] button")
    window.wait("#answer", "refused")
    window.wait("#metrics", "Requests per second", timeout_s=150)
    assert window.errors() == []


def test_the_scaling_of_an_endpoint_is_told_as_it_happens(
    served: Served, trained: Estimator, window: Browser
) -> None:
    assert trained.predictor is not None
    window.open(f"{served.url}{CONSOLE}/endpoints/{trained.predictor.name}")
    assert "The number of instances is fixed" in window.text("#scaling")
    target = {
        "ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "ResourceId": f"endpoint/{trained.predictor.name}/variant/AllTraffic",
    }  # fmt: skip
    scaling = served.client("application-autoscaling")
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=2)
    window.wait("#scaling", "Setting desired instance count to 2")
    assert "2 to 2 instances" in window.wait("#scaling", "Successful")
    scaling.deregister_scalable_target(**target)
    assert window.errors() == []


def test_a_transform_job_is_watched_and_stopped(served: Served, trained: Estimator, window: Browser) -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(100_000, 3)), columns=["a", "b", "c"])
    transformer = trained.transformer(strategy="SingleRecord", request={"MaxConcurrentTransforms": 1})
    transformer.transform(rows, wait=False)
    window.open(f"{served.url}{CONSOLE}/transforms")
    window.wait("#content", str(transformer.name))
    window.open(f"{served.url}{CONSOLE}/transforms/{transformer.name}")
    window.wait("#status", "Transforming")
    window.wait("#log", "MaxConcurrentTransforms=1")
    window.click("form[data-sure] button")
    window.accept()
    window.wait("#status", "Stopped", timeout_s=90)
    window.open(f"{served.url}{CONSOLE}/transforms/scored")
    window.click("a[href$=clone]")
    window.type("#new_name", "scored-again")
    window.type("#output", "s3://console-test/again")
    window.click("main form button")
    window.wait("h1", "scored-again")
    window.wait("#status", "Completed", timeout_s=90)
    job = [
        served.client("sagemaker").describe_transform_job(TransformJobName=n)
        for n in ("scored", "scored-again")
    ]
    assert job[0]["TransformInput"] == job[1]["TransformInput"]
    window.open(f"{served.url}{CONSOLE}/transforms/scored")
    window.click("#outputs a")
    window.wait("main", "rows.csv.out")
    window.open(f"{served.url}{CONSOLE}/transforms/none")
    window.wait("main .wrong:not([hidden])", "none")
    assert all("404" in line for line in window.errors())


def test_files_go_up_and_are_shown(
    served: Served, trained: Estimator, window: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("name,age\n<b>Ada</b>,36\n" + "x,1\n" * 1000)
    window.open(f"{served.url}{CONSOLE}/s3/console-test?prefix=up/")
    window.type("#file", str(file))
    window.click("form[data-upload] button")
    window.wait("table", "people.csv")
    window.click("tbody a")
    window.wait("main", "the first 50 rows")
    assert "<b>Ada</b>" in window.text("table")
    assert (
        window.run("return fetch(document.querySelector('.button').href).then(r => r.text())")
        == file.read_text()
    )
    assert window.errors() == []
