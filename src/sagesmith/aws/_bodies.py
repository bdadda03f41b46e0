"""Request bodies that arrive while a handler reads them.

The event loop feeds a :class:`BodyPipe`; the handler's thread reads from it through a decoder
(aws-chunked, signed or not) and checks. When much is waiting, the connection stops reading from its
socket until the handler has caught up.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._sigv4 import STREAMING_PREFIX, ChunkSigner, Signed
from sagesmith.aws._words import serialization_error
from sagesmith.errors import AwsError

__all__ = ["BodyPipe", "ChunkDecoder", "PipedBody", "StreamedBody", "collected", "inflated"]

HIGH_WATER: Final = 1024 * 1024
LOW_WATER: Final = 256 * 1024
_MAX_LINE: Final = 16 * 1024
_MAX_INFLATED: Final = 8 * 1024 * 1024
_CHUNK_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?(?:;[^\r\n]*)?")


class BodyPipe:
    """Bytes on their way from the event loop to one reading thread.

    *pause* and *resume* are called when more than the high water is waiting and when less than the low
    water is left; *resume* from the reading thread.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause, self._resume = pause, resume
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._paused = False
        self._ended = False
        self._broken = False
        self._condition = threading.Condition()

    def feed(self, data: bytes) -> None:
        """Take *data* in; on the loop."""
        with self._condition:
            self._chunks.append(data)
            self._waiting += len(data)
            if self._waiting > HIGH_WATER and not self._paused:
                self._paused = True
                self._pause()
            self._condition.notify()

    def end(self) -> None:
        """Say that all was fed; on the loop."""
        with self._condition:
            self._ended = True
            self._condition.notify()

    def break_off(self) -> None:
        """Say that the rest will never come; on the loop."""
        with self._condition:
            if not self._ended:
                self._broken = True
            self._condition.notify()

    def take(self) -> bytes:
        """Return what is there, waiting for it if need be; b"" at the end. In the reading thread.

        Raises:
            ConnectionError: the client left before the end.
        """
        with self._condition:
            while not self._chunks:
                if self._broken:
                    raise ConnectionError(
                        "the client closed the connection before the end of the request body"
                    )
                if self._ended:
                    return b""
                self._condition.wait()
            data = self._chunks.popleft()
            self._waiting -= len(data)
            if self._paused and self._waiting < LOW_WATER:
                self._paused = False
                self._resume()
            return data


class PipedBody:
    """A `BodyReader` over a pipe that takes everything as it is."""

    def __init__(self, pipe: BodyPipe) -> None:
        self.size: int | None = None
        self.trailers: Mapping[str, str] = {}
        self._pipe = pipe
        self._left = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes (all that is left if negative), b"" at the end."""
        if size < 0:
            parts = []
            while part := self.read(HIGH_WATER):
                parts.append(part)
            return b"".join(parts)
        if not self._left:
            self._left = self._pipe.take()
        data, self._left = self._left[:size], self._left[size:]
        return data


class ChunkDecoder:
    """Takes aws-chunked framing off a body and checks the chunks' signatures.

    A chunk is ``size;chunk-signature=...`` on a line, the data, an empty line; the last has size 0 and may
    be followed by trailing headers. Source: "Signature calculations for the Authorization header: Transferring payload
    in multiple chunks" and "Trailing headers with chunked uploads", Amazon S3 API Reference.
    """

    def __init__(self, signer: ChunkSigner | None) -> None:
        self.trailers: dict[str, str] = {}
        self.finished = False
        self._signer = signer
        self._buffer = b""
        self._left = -1  # of the current chunk's data; -1: at a chunk's head; -2: in the trailers
        self._mark = b""
        self._hash = hashlib.sha256()
        self._signed_lines = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the decoded pieces of *data*.

        Raises:
            AwsError: the framing is broken or a signature does not match.
        """
        self._buffer = self._buffer + data if self._buffer else data
        out: list[bytes] = []
        while not self.finished:
            if self._left > 0:
                piece = self._buffer[: self._left]
                if not piece:
                    break
                self._buffer = self._buffer[len(piece) :]
                self._left -= len(piece)
                if self._signer is not None:
                    self._hash.update(piece)
                out.append(piece)
            elif self._left == 0:
                if len(self._buffer) < 2:
                    break
                if self._buffer[:2] != b"\r\n":
                    raise _broken("a chunk is longer than it says")
                self._buffer = self._buffer[2:]
                self._check_chunk()
                self._left = -1
            else:
                line, found, rest = self._buffer.partition(b"\n")
                if not found:
                    if len(line) > _MAX_LINE:
                        raise _broken("a line is too long")
                    break
                self._buffer = rest
                self._line(line.rstrip(b"\r"))
        return out

    def _line(self, line: bytes) -> None:
        if self._left == -2:
            self._trailer(line)
            return
        found = _CHUNK_HEAD.fullmatch(line)
        if found is None:
            raise _broken(f"{line[:60]!r} is not the head of a chunk")
        self._left = int(found.group(1), 16)
        self._mark = found.group(2) or b""
        if self._signer is not None and not self._mark:
            raise _broken("a chunk has no signature")
        if self._left == 0:
            self._check_chunk()
            self._left = -2

    def _check_chunk(self) -> None:
        if self._signer is None:
            return
        if not self._signer.accepts_chunk(self._mark, self._hash.hexdigest().encode()):
            raise _unsigned()
        self._hash = hashlib.sha256()

    def _trailer(self, line: bytes) -> None:
        if not line:
            if self._signer is not None and self._signed_lines:
                mark = self.trailers.pop("x-amz-trailer-signature", "")
                if not self._signer.accepts_trailer(mark.encode(), self._signed_lines):
                    raise _unsigned()
            self.finished = True
            return
        name, found, value = line.partition(b":")
        if not found or len(self.trailers) > 32:
            raise _broken("a trailing header is malformed")
        key = name.strip().lower().decode("latin-1")
        self.trailers[key] = value.strip().decode("latin-1")
        if key != "x-amz-trailer-signature":
            self._signed_lines += key.encode() + b":" + value.strip() + b"\n"

    def end(self) -> None:
        """Say that nothing follows.

        Raises:
            AwsError: the last chunk is missing.
        """
        if self._left == -2 and not self.finished:
            self._trailer(b"")  # clients may leave out the very last empty line
        if not self.finished:
            raise AwsError(
                "IncompleteBody", "The request body terminated before its last chunk (the one of size 0)."
            )


def _broken(why: str) -> AwsError:
    return AwsError("InvalidRequest", f"The aws-chunked request body is malformed: {why}.")


def _unsigned() -> AwsError:
    return AwsError(
        "SignatureDoesNotMatch", "The signature of a chunk of the request body does not match.", status=403
    )


class StreamedBody:
    """A `BodyReader` over a pipe: decodes, checks hash, length and Content-MD5 at the end."""

    def __init__(
        self, pipe: BodyPipe, headers: Mapping[bytes, bytes], signed: Signed, size: int | None
    ) -> None:
        self._pipe = pipe
        self._left = b""
        self._done = False
        self._count = 0
        payload = signed.payload
        self._decoder: ChunkDecoder | None = None
        self._hash = None
        if payload.startswith(STREAMING_PREFIX):
            self._decoder = ChunkDecoder(ChunkSigner(signed) if b"HMAC" in payload else None)
            declared = headers.get(b"x-amz-decoded-content-length", b"")
            size = int(declared) if declared.isdigit() else None
        elif payload != b"UNSIGNED-PAYLOAD":
            self._hash = hashlib.sha256()
        self._declared = payload
        self._md5 = hashlib.md5(usedforsecurity=False) if b"content-md5" in headers else None
        self._content_md5 = headers.get(b"content-md5", b"")
        self.size = size
        self.trailers: Mapping[str, str] = self._decoder.trailers if self._decoder is not None else {}

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes (all that is left if negative), b"" at the end."""
        if size < 0:
            parts = []
            while part := self.read(HIGH_WATER):
                parts.append(part)
            return b"".join(parts)
        while not self._left and not self._done:
            self._fill()
        data, self._left = self._left[:size], self._left[size:]
        return data

    def _fill(self) -> None:
        data = self._pipe.take()
        ended = not data
        if self._decoder is not None:
            if ended:
                self._decoder.end()
            else:
                data = b"".join(self._decoder.feed(data))
        if self._hash is not None:
            self._hash.update(data)
        if self._md5 is not None:
            self._md5.update(data)
        self._count += len(data)
        self._left = data
        if ended:
            self._done = True
            self._check()

    def _check(self) -> None:
        if self.size is not None and self._count != self.size:
            raise AwsError(
                "IncompleteBody",
                f"The request body has {self._count} bytes, but {self.size} were announced.",
            )
        if self._hash is not None and self._hash.hexdigest().encode() != self._declared:
            raise AwsError(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                members={
                    "ClientComputedContentSHA256": self._declared.decode("latin-1"),
                    "S3ComputedContentSHA256": self._hash.hexdigest(),
                },
            )
        if self._md5 is not None and base64.b64encode(self._md5.digest()) != self._content_md5.strip():
            raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")


def collected(body: bytes, headers: Mapping[bytes, bytes], signed: Signed) -> bytes:
    """Return an S3 request's *body* that is complete already, decoded and checked as a streamed one would be.

    Raises:
        AwsError: as `StreamedBody.read`.
    """
    if not signed.payload.startswith(STREAMING_PREFIX) and b"content-md5" not in headers:
        return body
    pipe = BodyPipe(lambda: None, lambda: None)
    if body:
        pipe.feed(body)
    pipe.end()
    return StreamedBody(pipe, headers, signed, None).read()


def inflated(body: bytes, headers: Mapping[bytes, bytes], service: str) -> bytes:
    """Return *body*, decompressed if *headers* say that it is gzip (botocore compresses PutMetricData).

    Raises:
        AwsError: it is not, or too large; in the words of *service*.
    """
    import zlib

    if headers[b"content-encoding"].strip().lower() != b"gzip":
        return body
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(body, _MAX_INFLATED)
    except zlib.error as error:
        raise serialization_error(service, WrongTypeError(f"The body is not valid gzip: {error}.")) from error
    if inflater.unconsumed_tail or not inflater.eof:
        message = f"The body is not complete gzip, or has more than {_MAX_INFLATED} bytes when decompressed."
        raise serialization_error(service, WrongTypeError(message))
    return data
