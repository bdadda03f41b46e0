"""Several copies of a user's model, each in a process of its own: what SAGEMAKER_MODEL_SERVER_WORKERS asks for.

The model server stays one process; it hands each batch to a worker that is free. A worker that ends while it predicts
fails that batch alone, and another takes its place.
"""

from __future__ import annotations

import multiprocessing
import queue
from multiprocessing.connection import Connection
from typing import Any, Callable, Sequence

from sagesmith_toolkit.server import Predictor, Request, Response
from sagesmith_toolkit.serving.handlers import ModelError

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
            worker.wait_ready()
            self._free.put(worker)

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order; 500 for all if the worker ends."""
        worker = self._free.get()
        try:
            return worker.predict(requests)
        except (EOFError, OSError):
            code = worker.end()
            print("A worker ended with exit code %s; another one is started." % code, flush=True)
            worker = _Worker(self._make)
            worker.wait_ready()
            return [Response(500, "text/plain", b"The worker ended while it predicted.")] * len(requests)
        finally:
            self._free.put(worker)


class _Worker:
    def __init__(self, make: Callable[[], Predictor]) -> None:
        # Not forked: libraries of models do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, inside = context.Pipe()
        self._process = context.Process(target=_work, args=(make, inside), daemon=True)
        self._process.start()
        inside.close()

    def wait_ready(self) -> None:
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            raise ModelError("A worker did not start: exit code %s." % self.end()) from None

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        self._pipe.send([(*request[:5], dict(request.fields)) for request in requests])
        return [Response(*answer) for answer in self._pipe.recv()]

    def end(self) -> Any:
        self._pipe.close()
        self._process.join(1.0)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _work(make: Callable[[], Predictor], pipe: Connection) -> None:
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        predictor = make()
    except ModelError as error:
        print("ERROR: %s" % error, file=sys.stderr, flush=True)
        sys.exit(1)
    pipe.send("ready")
    while True:
        try:
            requests = pipe.recv()
        except EOFError:
            return
        answers = predictor.predict([Request(*request) for request in requests])
        pipe.send([tuple(answer) for answer in answers])
