"""Data capture: what endpoints were asked and answered, as JSON Lines in S3.

An invocation only leaves what it has anyway; texts are made of it, gathered and written in a thread, every few
seconds or when much has come together. When S3 is slower than the captures come, captures are dropped, as on
SageMaker, and never an answer delayed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sagesmith.clock import Clock, system_clock

__all__ = ["Capture", "Captured", "Captures"]

FLUSH_S: Final = 10.0
MUCH_BYTES: Final = 4 * 1024 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """One invocation that was answered. *headers* are the lines of the answer's head."""

    time: float
    body: bytes
    content_type: bytes
    attributes: bytes
    inference_id: bytes
    headers: bytes
    answer: bytes


class Capture:
    """The capture of one endpoint, from its `DataCaptureConfig`. On the event loop, but for :meth:`files`."""

    def __init__(self, endpoint: str, config: Mapping[str, Any], much: Callable[[], None]) -> None:
        self.config = config
        self._endpoint = endpoint
        self._percent: int = config["InitialSamplingPercentage"]
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        both = "InputAndOutput" in modes
        self._input, self._output = both or "Input" in modes, both or "Output" in modes
        types = config.get("CaptureContentTypeHeader") or {}
        self._encodings = {
            **dict.fromkeys(map(_bare, types.get("CsvContentTypes") or ()), "CSV"),
            **dict.fromkeys(map(_bare, types.get("JsonContentTypes") or ()), "JSON"),
        }
        self._much = much
        self._gathered: list[Captured] = []
        self._size = 0

    def wants(self) -> bool:
        """Whether the next invocation is captured: so many in a hundred are, and none while too many wait."""
        return self._size < MOST_BYTES and random.random() * 100 < self._percent  # noqa: S311 - a sample

    def add(self, captured: Captured) -> None:
        """Keep *captured* until it is written."""
        self._gathered.append(captured)
        self._size += len(captured.body) + len(captured.answer)
        if self._size > MUCH_BYTES:
            self._much()

    def take(self) -> list[Captured]:
        """Return what was gathered, and forget it."""
        gathered, self._gathered, self._size = self._gathered, [], 0
        return gathered

    def files(self, gathered: Sequence[Captured]) -> dict[str, bytes]:
        """Return *gathered* as objects, by what their keys have below the destination. Thread-safe."""
        lines: dict[tuple[str, str], list[bytes]] = {}
        firsts: dict[tuple[str, str], datetime] = {}
        for captured in gathered:
            time = datetime.fromtimestamp(captured.time, UTC)
            variant = _header(captured.headers, b"x-amzn-invoked-production-variant")
            place = (variant, time.strftime("%Y/%m/%d/%H"))
            firsts.setdefault(place, time)
            lines.setdefault(place, []).append(self._line(captured, time))
        return {
            f"{self._endpoint}/{variant}/{hour}/{firsts[variant, hour].strftime('%M-%S-%f')[:-3]}-{uuid.uuid4()}.jsonl":
                b"".join(found)
            for (variant, hour), found in lines.items()
        }  # fmt: skip

    def _line(self, captured: Captured, time: datetime) -> bytes:
        data = {}
        if self._input:
            content_type = captured.content_type.decode("latin-1")
            data["endpointInput"] = self._side("INPUT", content_type, captured.body)
        if self._output:
            content_type = _header(captured.headers, b"content-type")
            data["endpointOutput"] = self._side("OUTPUT", content_type, captured.answer)
        event: dict[str, Any] = {"eventId": str(uuid.uuid4())}
        if captured.attributes:
            event["customAttributes"] = [captured.attributes.decode("latin-1")]
        if captured.inference_id:
            event["inferenceId"] = captured.inference_id.decode("latin-1")
        event["inferenceTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
        line = {"captureData": data, "eventMetadata": event, "eventVersion": "0"}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def _side(self, mode: str, content_type: str, body: bytes) -> dict[str, str]:
        encoding = self._encodings.get(_bare(content_type), "BASE64")
        try:
            text = body.decode("utf-8") if encoding != "BASE64" else base64.b64encode(body).decode()
        except UnicodeDecodeError:
            encoding, text = "BASE64", base64.b64encode(body).decode()
        return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}


class Captures:
    """The captures of all endpoints. On the event loop.

    Args:
        put: stores an object: bucket, key, content. Called in a thread; raises whatever it likes.
        flush_s: how long a capture waits at most before it is written.
    """

    def __init__(
        self,
        put: Callable[[str, str, bytes], object],
        *,
        clock: Clock = system_clock,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.clock = clock
        self._put = put
        self._flush_s = flush_s
        self._by_endpoint: dict[tuple[str, str], Capture] = {}
        self._left: list[Capture] = []
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; call it once."""
        self._task = asyncio.get_running_loop().create_task(self._write_all(), name="data capture")

    async def close(self) -> None:
        """Write what was gathered, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._flush()

    def set(self, region: str, endpoint: str, config: Mapping[str, Any]) -> None:
        """Capture what the endpoint is asked by *config*, a `DataCaptureConfig`; nothing if it is empty or off."""
        key = (region, endpoint)
        present = self._by_endpoint.get(key)
        if config and config.get("EnableCapture", True):
            if present is not None and present.config == config:
                return
            self._by_endpoint[key] = Capture(endpoint, config, self._more.set)
        else:
            self._by_endpoint.pop(key, None)
        if present is not None:
            self._left.append(present)

    def find(self, region: str, endpoint: str) -> Capture | None:
        """Return the endpoint's capture if the next invocation is to be captured."""
        if not self._by_endpoint:
            return None
        capture = self._by_endpoint.get((region, endpoint))
        return capture if capture is not None and capture.wants() else None

    async def _write_all(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._more.wait()
            except TimeoutError:
                pass
            await self._flush()

    async def _flush(self) -> None:
        self._more.clear()
        left, self._left = self._left, []
        for capture in (*left, *self._by_endpoint.values()):
            gathered = capture.take()
            if gathered:
                await asyncio.get_running_loop().run_in_executor(None, self._write, capture, gathered)

    def _write(self, capture: Capture, gathered: Sequence[Captured]) -> None:
        bucket, _, prefix = capture.config["DestinationS3Uri"].partition("://")[2].partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        try:
            for name, content in capture.files(gathered).items():
                self._put(bucket, prefix + name, content)
        except Exception:  # the endpoint must not suffer from its bucket
            _log.exception("%d captured invocations could not be written to s3://%s", len(gathered), bucket)


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _header(lines: bytes, name: bytes) -> str:
    for line in lines.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip().decode("latin-1")
    return ""
