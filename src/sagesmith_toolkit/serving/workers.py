"""Several copies of a user's model, each in a process of its own: what SAGEMAKER_MODEL_SERVER_WORKERS asks for.

The model server stays one process; it hands each request to a worker that is free. A worker that ends while it predicts
fails that request alone, and another takes its place. The parts of a streamed answer are fetched one by one from the
worker that makes it, which predicts for others in between.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any, Callable, Dict, Iterator, Sequence

from sagesmith_toolkit.server import Predictor, Request, Response
from sagesmith_toolkit.serving.handlers import ModelError
from sagesmith_toolkit.streams import Streamed

__all__ = ["WorkerPool"]


class WorkerPool:
    """A predictor that spreads its calls over *count* processes, each with what *make* returns there.

    `predict` may be called by *count* threads at once.

    Raises:
        ModelError: *make* failed in a worker; its output says why.
    """

    blocking = True

    def __init__(self, make: Callable[[], Predictor], count: int) -> None:
        self.parallel = count
        self._make = make
        self._free: queue.Queue[_Worker] = queue.Queue()
        workers = [_Worker(make) for _ in range(count)]
        for worker in workers:
            self.one_by_one = worker.wait_ready()
            self._free.put(worker)

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order; 500 for all if the worker ends."""
        answers: Any = self._ask("predict", [_plain(request) for request in requests])
        if answers is None:
            return [Response(500, "text/plain", _ENDED.encode())] * len(requests)
        return [Response(*answer) for answer in answers]

    def stream(self, request: Request) -> Streamed:
        """Return the response to *request*; 500 if the worker ends before it begins."""
        answer = self._ask("stream", _plain(request))
        return Streamed(*answer) if answer is not None else Streamed(500, "text/plain", _ENDED.encode())

    def _ask(self, what: str, argument: Any) -> Any:
        """Ask a free worker; None if it ends meanwhile."""
        worker = self._free.get()
        try:
            if worker.ended:  # while it made a part of a stream
                worker = self._another(worker)
            return worker.ask(what, argument)
        except (EOFError, OSError):
            worker = self._another(worker)
            return None
        finally:
            self._free.put(worker)

    def _another(self, worker: _Worker) -> _Worker:
        print("A worker ended with exit code %s; another one is started." % worker.end(), flush=True)
        worker = _Worker(self._make)
        worker.wait_ready()
        return worker


_ENDED = "The worker ended while it predicted."


def _plain(request: Request) -> Any:
    return (*request[:5], dict(request.fields))


class _Worker:
    def __init__(self, make: Callable[[], Predictor]) -> None:
        # Not forked: libraries of models do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, inside = context.Pipe()
        self._process = context.Process(target=_work, args=(make, inside), daemon=True)
        self._process.start()
        self._turn = threading.Lock()
        self.ended = False
        inside.close()

    def wait_ready(self) -> bool:
        """Return whether its predictor wants requests one by one."""
        try:
            return bool(self._pipe.recv())
        except (EOFError, OSError):
            raise ModelError("A worker did not start: exit code %s." % self.end()) from None

    def ask(self, what: str, argument: Any) -> Any:
        """Return what the worker answers; one question at a time.

        Raises:
            EOFError, OSError: the worker has ended.
        """
        with self._turn:
            self._pipe.send((what, argument))
            answer = self._pipe.recv()
        if what == "stream" and isinstance(answer[2], int):
            return (*answer[:2], _parts(self, answer[2]), *answer[3:])
        return answer

    def end(self) -> Any:
        self._pipe.close()
        self._process.join(1.0)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _parts(worker: _Worker, number: int) -> Iterator[bytes]:
    """Yield the parts of a stream that *worker* makes.

    Raises:
        RuntimeError: the user's code failed, or the worker ended.
    """
    over = False
    try:
        while True:
            part, fault = worker.ask("next", number)
            if part is None:
                over = True
                if fault:
                    raise RuntimeError(fault)
                return
            yield part
    except (EOFError, OSError):
        worker.ended = over = True
        raise RuntimeError(_ENDED) from None
    finally:
        if not over:
            worker.ask("close", number)


def _work(make: Callable[[], Predictor], pipe: Connection) -> None:
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        predictor = make()
    except ModelError as error:
        print("ERROR: %s" % error, file=sys.stderr, flush=True)
        sys.exit(1)
    pipe.send(bool(getattr(predictor, "one_by_one", False)))
    streams = _Streams(predictor)
    while True:
        try:
            what, argument = pipe.recv()
        except EOFError:
            return
        if what == "predict":
            pipe.send([tuple(answer) for answer in predictor.predict([Request(*each) for each in argument])])
        else:
            pipe.send(getattr(streams, what)(argument))


class _Streams:
    """The streams that a worker makes, by number."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor: Any = predictor
        self._open: Dict[int, Iterator[bytes]] = {}
        self._numbers = itertools.count(1)

    def stream(self, request: Any) -> Any:
        asked = Request(*request)
        if not hasattr(self._predictor, "stream"):
            return tuple(self._predictor.predict([asked])[0])
        status, kind, body, attributes = self._predictor.stream(asked)
        if isinstance(body, bytes):
            return status, kind, body, attributes
        number = next(self._numbers)
        self._open[number] = iter(body)
        return status, kind, number, attributes

    def next(self, number: int) -> Any:
        """Return (part, ""), or (None, why it ended)."""
        try:
            part = next(self._open[number], None)
        except Exception as error:  # the user's code
            traceback.print_exc()
            part, fault = None, "%s: %s" % (type(error).__name__, error)
        else:
            fault = ""
        if part is None:
            del self._open[number]
        return part, fault

    def close(self, number: int) -> None:
        close = getattr(self._open.pop(number, None), "close", None)
        if close is not None:
            close()
