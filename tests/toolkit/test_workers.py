"""Several workers: they predict side by side, and one that dies takes nobody along."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from sagesmith_toolkit.server import Request
from sagesmith_toolkit.serving import ModelError
from sagesmith_toolkit.serving._main import _predictor
from sagesmith_toolkit.serving.workers import WorkerPool

CODE = """
import os, pathlib, time

def model_fn(model_dir):
    if os.path.exists(model_dir + "/broken"):
        raise RuntimeError("the model is broken")
    return pathlib.Path(model_dir)

def input_fn(body, content_type):
    return body

def parts(what):
    try:
        yield str(os.getpid())
        if what == "parts die":
            os._exit(8)
        if what == "parts fail":
            raise KeyError("price")
        yield "b"
    finally:
        print("closed", flush=True)

def predict_fn(data, model):
    if data == "die":
        os._exit(7)
    if data.startswith("parts"):
        return parts(data)
    (model / str(os.getpid())).touch()
    while data == "meet" and len(list(model.iterdir())) < 2:
        time.sleep(0.01)
    return str(os.getpid())

def output_fn(prediction, accept):
    return prediction
"""


def request(body: str) -> Request:
    return Request("/invocations", "text/plain", "text/plain", "", body.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(dedent(CODE))
    return tmp_path


@pytest.fixture
def pool(folder: Path) -> WorkerPool:
    make = functools.partial(
        _predictor, "scikit-learn", str(folder / "model"), folder / "code", "inference.py"
    )
    return WorkerPool(make, 2)


def test_workers_predict_side_by_side(pool: WorkerPool) -> None:
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: pool.predict([request("meet")])[0], range(2))
    assert (first.status, second.status) == (200, 200)
    assert first.body != second.body


def test_a_worker_that_dies_fails_its_requests_alone(
    pool: WorkerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = pool.predict([request("die"), request("x")])
    assert [answer.status for answer in lost] == [500, 500]
    assert b"ended while it predicted" in lost[0].body
    assert "A worker ended with exit code 7" in capsys.readouterr().out
    assert [pool.predict([request("x")])[0].status for _ in range(3)] == [200] * 3


def test_a_model_that_does_not_load_is_told(folder: Path) -> None:
    (folder / "model" / "broken").touch()
    make = functools.partial(
        _predictor, "scikit-learn", str(folder / "model"), folder / "code", "inference.py"
    )
    with pytest.raises(ModelError, match="A worker did not start: exit code 1"):
        WorkerPool(make, 2)


def test_streams_come_from_the_worker_that_makes_them(pool: WorkerPool) -> None:
    streams = [iter(pool.stream(request("parts")).body) for _ in range(3)]
    (first,) = pool.predict([request("x")])
    assert first.status == 200, "workers with streams are free for others"
    pids = {next(stream) for stream in streams}
    assert len(pids) == 2
    assert [list(stream) for stream in streams] == [[b"b"]] * 3
    whole = pool.stream(request("x"))
    assert whole.body in pids
    failing = iter(pool.stream(request("parts fail")).body)
    assert next(failing) in pids
    with pytest.raises(RuntimeError, match="KeyError: 'price'"):
        next(failing)
    dying = iter(pool.stream(request("parts die")).body)
    assert next(dying) in pids
    with pytest.raises(RuntimeError, match="The worker ended"):
        next(dying)
    assert [pool.predict([request("x")])[0].status for _ in range(2)] == [200, 200], "another took its place"
