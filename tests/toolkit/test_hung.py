"""A model that does not answer in its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from sagesmith_toolkit.server import Request, Response
from sagesmith_toolkit.serving import hung
from sagesmith_toolkit.serving.handlers import ModelError
from sagesmith_toolkit.streams import Streamed

ASKED = Request("/invocations", "", "", "", b"")


class Model:
    """Answers *quick* calls and parts, and waits in all others until the process would be gone."""

    def __init__(self, quick: int) -> None:
        self.gone = threading.Event()
        self.closed = False
        self._quick = quick
        self._calls = 0

    def _step(self) -> None:
        self._calls += 1
        if self._calls > self._quick:
            assert self.gone.wait(20)

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        self._step()
        return [Response(200, "text/plain", b"done")]

    def stream(self, request: Request) -> Streamed:
        self._step()
        return Streamed(200, "text/plain", self._words())

    def _words(self) -> Iterator[bytes]:
        try:
            for word in (b"a", b"b"):
                self._step()
                yield word
        finally:
            self.closed = True


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_LATER_S", 0.02), ("_LOOK_S", 0.005), ("_PART_S", 0.05)):
        monkeypatch.setattr(hung, name, value)


def watched(quick: int) -> tuple[Model, list[int]]:
    """Return a model under watch, and the exit codes with which its process would have ended."""
    model, codes = Model(quick), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        model.gone.set()

    hung.watch(model, 0.05, end)
    return model, codes


def test_a_call_that_takes_too_long_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    model, codes = watched(2)
    assert [answer.body for _ in range(2) for answer in model.predict([ASKED])] == [b"done"] * 2
    assert codes == []
    model.predict([ASKED])
    assert codes == [1]
    assert "The model did not answer in 0.05 s (SAGEMAKER_MODEL_SERVER_TIMEOUT)" in capfd.readouterr().err


@pytest.mark.parametrize(("quick", "codes"), [(3, []), (0, [1]), (1, [1]), (2, [1])])
def test_each_part_of_a_stream_is_watched(quick: int, codes: list[int]) -> None:
    model, found = watched(quick)
    assert list(model.stream(ASKED).body) == [b"a", b"b"]
    assert found == codes


def test_a_stream_that_nobody_reads_on_is_closed() -> None:
    model, _ = watched(3)
    pieces = model.stream(ASKED).body
    assert isinstance(pieces, Iterator)
    assert next(pieces) == b"a"
    pieces.close()  # type: ignore[attr-defined]
    assert model.closed


@pytest.mark.parametrize("text", ["a minute", "-1", "inf", "nan"])
def test_a_limit_that_is_none(text: str) -> None:
    with pytest.raises(ModelError, match="a number of seconds from 0"):
        hung.limit_of({hung.TIMEOUT: text})


def test_limits() -> None:
    assert (hung.limit_of({}), hung.limit_of({hung.TIMEOUT: "2.5"})) == (0.0, 2.5)
