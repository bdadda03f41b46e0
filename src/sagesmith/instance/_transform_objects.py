"""One object of a transform job after the other, and several at once: stream, payloads, answers, output.

Threads do it, since everything here waits for S3 or for the model server. Answers are written in the order of their
payloads. How many payloads are in memory is bounded for all objects together. An output appears when it is whole,
carries the mark of its job, and is uploaded such that a repeated request does not write it twice.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sagesmith.instance._data_processing import DataProcessing
from sagesmith.instance._invocations import Answer, Invocations, NotAnsweredError
from sagesmith.instance._objects import DataError, Objects
from sagesmith.instance._split import payloads
from sagesmith.instance._staging import Item

__all__ = ["MARK", "Failure", "ObjectTransformer", "Parameters"]

MARK: Final = "sagesmith-transform-job"
"""The metadata of an output that names its job's `uid`."""
_OBJECTS_AT_ONCE: Final = 8
_IN_MEMORY: Final = 4 * 1024 * 1024
_PAUSE_S: Final = 0.2
_SHOWN: Final = 500


@dataclass(frozen=True, slots=True)
class Parameters:
    """How requests are made, once request, model server and defaults have been asked."""

    content_type: str
    accept: str
    split_type: str
    single: bool
    compression: str
    max_payload_mb: int
    max_concurrent: int
    max_retries: int
    add_newline: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """An object without output. *fault* is ``ClientError`` or ``AlgorithmError``."""

    uri: str
    fault: str
    reason: str


class _Failed(Exception):
    def __init__(self, fault: str, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


class ObjectTransformer:
    """Transforms objects with the model server behind *invocations*.

    Args:
        folder: for what is too large for memory; it is there, and private.
        uid: the job's mark.
        place: the bucket and key of an object's output.
        skip_marked: whether outputs may be there already, from an instance that was lost.
        note: takes lines for the data log; called in threads.
    """

    def __init__(
        self,
        objects: Objects,
        invocations: Invocations,
        parameters: Parameters,
        processing: DataProcessing,
        *,
        folder: Path,
        uid: str,
        place: Callable[[Item], tuple[str, str]],
        skip_marked: bool,
        note: Callable[[str], None],
    ) -> None:
        self._objects = objects
        self._invocations = invocations
        self._parameters = parameters
        self._processing = processing
        self._folder = folder
        self._uid = uid
        self._place = place
        self._skip_marked = skip_marked
        self._note = note
        self._numbers = iter(range(1 << 62))

    def run(self, items: Sequence[Item]) -> list[Failure]:
        """Transform *items*; return those that failed. The others' outputs are written nevertheless.

        Raises:
            Cancelled: `Invocations.cancel` was called.
        """
        at_once = max(1, min(self._parameters.max_concurrent, len(items), _OBJECTS_AT_ONCE))
        room = threading.Semaphore(self._parameters.max_concurrent + at_once)
        with (
            ThreadPoolExecutor(self._parameters.max_concurrent, "invoke") as askers,
            ThreadPoolExecutor(at_once, "object") as pool,
        ):
            jobs = [pool.submit(self._transform, item, askers, room) for item in items]
            try:
                return [failure for job in jobs if (failure := job.result()) is not None]
            except BaseException:
                self._invocations.cancel()
                for job in jobs:
                    job.cancel()
                raise

    def _transform(self, item: Item, askers: ThreadPoolExecutor, room: threading.Semaphore) -> Failure | None:
        self._invocations.check()
        name = f"{item.bucket}/{item.key}"
        try:
            bucket, key = self._place(item)
            if self._skip_marked and self._is_done(bucket, key):
                return None
            with _Output(self._folder / f"output-{next(self._numbers)}") as output:
                self._fill(output, item, askers, room)
                self._invocations.check()
                self._objects.put(bucket, key, output.content(), metadata={MARK: self._uid}, in_parts=True)
            return None
        except _Failed as error:
            fault, reason = error.fault, str(error)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            fault, reason = (
                "ClientError",
                f"The object is not gzip data, but CompressionType is Gzip ({error}).",
            )
        except DataError as error:
            fault, reason = "ClientError", str(error)
        for line in reason.splitlines()[:20]:
            self._note(f"{name}: {line}")
        return Failure(f"s3://{name}", fault, reason)

    def _is_done(self, bucket: str, key: str) -> bool:
        head = self._objects.head(bucket, key)
        return head is not None and head.metadata.get(MARK) == self._uid

    def _fill(
        self, output: _Output, item: Item, askers: ThreadPoolExecutor, room: threading.Semaphore
    ) -> None:
        window: deque[Future[bytes]] = deque()

        def write_next() -> None:
            try:
                result = window.popleft().result()
            finally:
                room.release()
            output.write(result)

        parameters = self._parameters
        try:
            aside = self._folder / f"input-{next(self._numbers)}"
            with self._objects.open(item.bucket, item.key, aside) as raw:
                source: IO[bytes] = gzip.GzipFile(fileobj=raw) if parameters.compression == "Gzip" else raw  # type: ignore[assignment]
                for payload in payloads(
                    source,
                    parameters.split_type,
                    single=parameters.single,
                    limit=parameters.max_payload_mb * 2**20,
                ):
                    # Who holds none may wait for room: somebody else's answers will make it.
                    while not room.acquire(blocking=not window):
                        write_next()
                    window.append(askers.submit(self._answered, payload))
                    while window and window[0].done():
                        write_next()
            while window:
                write_next()
        finally:
            for future in window:
                future.cancel()
            if window:
                room.release(len(window))

    def _answered(self, payload: bytes) -> bytes:
        """Return what is written for *payload*."""
        request = self._processing.request(payload)
        answer = self._insist(request)
        result = self._processing.result(payload, answer.body, answer.content_type or self._parameters.accept)
        if self._parameters.add_newline and result and not result.endswith(b"\n"):
            result += b"\n"
        return result

    def _insist(self, request: bytes) -> Answer:
        """Ask until there is a good answer, as often as allowed."""
        parameters, pause = self._parameters, _PAUSE_S
        for left in range(parameters.max_retries, -1, -1):
            try:
                answer = self._invocations.ask(
                    "/invocations", parameters.content_type, parameters.accept, request
                )
            except NotAnsweredError as error:
                failed = _Failed("AlgorithmError", str(error))
            else:
                if answer.is_good:
                    return answer
                text = answer.body.decode("utf-8", "replace").strip()[:_SHOWN]
                is_clients = 400 <= answer.status < 500 and answer.status not in (408, 429)
                fault = "ClientError" if is_clients else "AlgorithmError"
                failed = _Failed(
                    fault, f"Bad HTTP status returned from invoke: {answer.status}\n{text}".strip()
                )
            if left:
                self._invocations.pause(pause)
                pause *= 2
        raise failed


class _Output:
    """What is written, in memory as long as it is small."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink()

    def write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _IN_MEMORY:
            self._file = self._path.open("wb")
            self._file.writelines(self._pieces)
            self._pieces.clear()

    def content(self) -> Path | bytes:
        """Return all of it; nothing is written any more."""
        if self._file is None:
            return b"".join(self._pieces)
        self._file.flush()
        return self._path
