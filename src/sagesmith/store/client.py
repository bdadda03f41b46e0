"""The S3 client of agents and other small programs of ours: quick to import, patient, frugal.

Works with the embedded S3 and with any other (it uses nothing but the standard operations). From the embedded
S3 on the same machine, files are linked instead of copied: a request header asks for the object version's
path, and linking falls back to downloading wherever it does not work.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote, unquote_plus

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.store._object_bodies import READ_BYTES, Piece, Xml, pieces_of, read_fully
from sagesmith.store._object_requests import Address, Requests, Response, ServerAway

if TYPE_CHECKING:
    from sagesmith.signing import CredentialsLike

__all__ = ["Address", "ObjectClient", "ObjectHead", "ObjectStream", "ObjectSummary", "ServerAway"]

MULTIPART_BYTES: Final = 64 * 1024 * 1024
PART_BYTES: Final = 16 * 1024 * 1024
_MAX_PARTS: Final = 10_000
_THREADS: Final = 4
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """An object in a listing. `modified` is ISO 8601 text as the server gave it."""

    key: str
    size: int
    etag: str
    modified: str


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What HeadObject told. `path` is the version's file, if the embedded S3 on this machine gave it."""

    size: int
    etag: str
    modified: float
    content_type: str
    metadata: Mapping[str, str]
    path: str = ""


class ObjectClient:
    """Reads and writes objects. Thread-safe.

    Args:
        address: where the S3 is (`instance.spec.ServerAddress` fits).
        credentials: the key, or a function that returns the present one.
        region: the signature's region.
        patience_s: for how long each request is tried while the server is away.
        threads: how many parts of a large object travel at once.
        clock: what time signatures carry.

    Every method raises `AwsError` when the server refuses (`NoSuchKey`, `AccessDenied`, ...), `ServerAway` when
    none answers for *patience_s*.
    """

    def __init__(
        self,
        address: Address,
        credentials: CredentialsLike | Callable[[], CredentialsLike],
        region: str,
        *,
        patience_s: float = 600.0,
        threads: int = _THREADS,
        part_bytes: int = PART_BYTES,
        multipart_bytes: int = MULTIPART_BYTES,
        clock: Clock = system_clock,
    ) -> None:
        self._requests = Requests(address, credentials, region, patience_s=patience_s, clock=clock)
        self._threads = threads
        self._part_bytes = part_bytes
        self._multipart_bytes = multipart_bytes

    def close(self) -> None:
        """Close idle connections."""
        self._requests.close()

    def __enter__(self) -> ObjectClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- reading ------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> ObjectHead | None:
        """Return what is known of an object, None if it does not exist."""
        headers = {"x-sagesmith-link": "1"}
        with self._requests.send("HEAD", bucket, key, headers=headers, missing_ok=True) as response:
            if response.status == 404:
                return None
            found = response.headers
            modified = found.get("last-modified", "")
            return ObjectHead(
                int(found.get("content-length", "0")),
                found.get("etag", "").strip('"'),
                parsedate_to_datetime(modified).timestamp() if modified else 0.0,
                found.get("content-type", ""),
                {name[11:]: value for name, value in found.items() if name.startswith("x-amz-meta-")},
                found.get("x-sagesmith-path", ""),
            )

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectSummary]:
        """Yield every object whose key begins with *prefix*, in byte order of the keys."""
        token = ""
        while True:
            query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
            if token:
                query["continuation-token"] = token
            with self._requests.send("GET", bucket, query=query) as response:
                page = Xml(response.read())
            for one in page.all("Contents"):
                yield ObjectSummary(
                    unquote_plus(one.text("Key")),
                    int(one.text("Size") or 0),
                    one.text("ETag").strip('"'),
                    one.text("LastModified"),
                )
            token = page.text("NextContinuationToken")
            if page.text("IsTruncated") != "true" or not token:
                return

    def get(self, bucket: str, key: str, path: Path, *, link: bool = True) -> ObjectHead:
        """Bring an object's content to the file *path*, which appears only when it is complete.

        Args:
            bucket: where it is.
            key: its name.
            path: replaced if it exists; its folder is made if need be.
            link: allow that *path* shares the file with the object store. Then it is read-only, and must stay so.

        Raises:
            AwsError: `NoSuchKey` and whatever else the server answers.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.parent / f".{uuid.uuid4().hex}.part"
        try:
            tries = _TRIES
            while True:
                head = self._present(bucket, key)
                tries -= 1
                try:
                    if not (link and head.path and _linked(head, aside)):
                        self._download(bucket, key, head, aside)
                except AwsError as error:
                    # Replaced while it was read: begin again with the new version.
                    if error.status != 412 or not tries:
                        raise
                else:
                    aside.replace(path)
                    return head
        finally:
            aside.unlink(missing_ok=True)

    def open_stream(self, bucket: str, key: str) -> ObjectStream:
        """Return a reader of an object's content, which goes on after a broken connection.

        Raises:
            AwsError: `NoSuchKey`.
        """
        return ObjectStream(self._requests, bucket, key)

    def open(self, bucket: str, key: str, aside: Path) -> IO[bytes]:
        """Return a reader of an object's content: of the store's own file if it can be linked, else of a stream.

        Args:
            bucket: where it is.
            key: its name.
            aside: where the link may be for a moment; nothing is there.

        Raises:
            AwsError: `NoSuchKey`.
        """
        head = self._present(bucket, key)
        if head.path and _linked(head, aside):
            try:
                return aside.open("rb")
            finally:
                aside.unlink()
        return io.BufferedReader(self.open_stream(bucket, key), READ_BYTES)

    def read(self, bucket: str, key: str) -> bytes:
        """Return an object's whole content."""
        with self.open_stream(bucket, key) as stream:
            return stream.readall()

    # ---- writing ------------------------------------------------------------------------------------

    def put(
        self,
        bucket: str,
        key: str,
        source: Path | bytes | IO[bytes],
        *,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        in_parts: bool = False,
    ) -> str:
        """Store a file, bytes, or what a stream gives (read once, to its end); return the ETag.

        A small object is one request, which after a lost answer is repeated, and then makes a second version. With
        *in_parts* it is an upload in parts, which is completed once, whatever is repeated.
        """
        headers = {f"x-amz-meta-{name}": value for name, value in (metadata or {}).items()}
        if content_type:
            headers["Content-Type"] = content_type
        if isinstance(source, bytes):
            piece = Piece.of_bytes(source)
            if in_parts:
                return self._multipart(bucket, key, iter((piece,)), headers)
            return self._put_piece(bucket, key, piece, headers)
        if isinstance(source, Path):
            size = source.stat().st_size
            if size < self._multipart_bytes and not in_parts:
                return self._put_piece(bucket, key, Piece(source, 0, size), headers)
            part = max(self._part_bytes, -(-size // _MAX_PARTS))
            pieces: Iterator[Piece] = (
                Piece(source, offset, min(part, size - offset)) for offset in range(0, size, part)
            )
            return self._multipart(bucket, key, pieces, headers)
        first = read_fully(source, self._part_bytes)
        if len(first) < self._part_bytes:
            return self._put_piece(bucket, key, Piece.of_bytes(first), headers)
        return self._multipart(bucket, key, pieces_of(first, source, self._part_bytes), headers)

    def copy(self, source_bucket: str, source_key: str, bucket: str, key: str) -> None:
        """Copy an object of up to 5 GiB inside the S3."""
        headers = {"x-amz-copy-source": quote(f"{source_bucket}/{source_key}", safe="/~")}
        with self._requests.send("PUT", bucket, key, headers=headers) as response:
            Xml(response.read()).raise_error()

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; one that does not exist is deleted already."""
        self._requests.send("DELETE", bucket, key).read()

    # -------------------------------------------------------------------------------------------------

    def _present(self, bucket: str, key: str) -> ObjectHead:
        head = self.head(bucket, key)
        if head is None:
            raise AwsError("NoSuchKey", f"The specified key does not exist: s3://{bucket}/{key}", status=404)
        return head

    def _download(self, bucket: str, key: str, head: ObjectHead, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            ranges = [
                (offset, min(self._part_bytes, head.size - offset))
                for offset in range(0, head.size, self._part_bytes)
            ]
            if len(ranges) <= 1:
                self._fetch(bucket, key, head, descriptor, 0, head.size)
                return
            with ThreadPoolExecutor(self._threads, "download") as pool:
                jobs = [pool.submit(self._fetch, bucket, key, head, descriptor, *piece) for piece in ranges]
                try:
                    for job in jobs:
                        job.result()
                except BaseException:
                    for job in jobs:
                        job.cancel()
                    raise
        finally:
            os.close(descriptor)

    def _fetch(
        self, bucket: str, key: str, head: ObjectHead, descriptor: int, offset: int, size: int
    ) -> None:
        """Write one range of an object to its place in a file."""
        if not size:
            return
        with ObjectStream(self._requests, bucket, key, etag=head.etag, offset=offset, size=size) as stream:
            buffer = memoryview(bytearray(min(size, READ_BYTES)))
            while count := stream.readinto(buffer):
                done = 0
                while done < count:
                    done += os.pwrite(descriptor, buffer[done:count], offset + done)
                offset += count

    def _put_piece(
        self, bucket: str, key: str, piece: Piece, headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> str:  # fmt: skip
        headers = {**headers, "x-amz-checksum-crc32": piece.crc32()}
        with self._requests.send("PUT", bucket, key, query=query, headers=headers, body=piece) as response:
            response.read()
            return response.headers.get("etag", "").strip('"')

    def _multipart(self, bucket: str, key: str, pieces: Iterator[Piece], headers: Mapping[str, str]) -> str:
        with self._requests.send("POST", bucket, key, query={"uploads": ""}, headers=headers) as response:
            upload = Xml(response.read()).text("UploadId")
        etags: dict[int, str] = {}

        def send(number: int, piece: Piece) -> None:
            query = {"partNumber": str(number), "uploadId": upload}
            etags[number] = self._put_piece(bucket, key, piece, {}, query)

        try:
            with ThreadPoolExecutor(self._threads, "upload") as pool:
                under_way: set[Future[None]] = set()
                for number, piece in enumerate(pieces, 1):
                    under_way.add(pool.submit(send, number, piece))
                    if len(under_way) >= self._threads:  # a stream's parts are in memory: no more than that
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        for job in done:
                            job.result()
                for job in under_way:
                    job.result()
            return self._complete(bucket, key, upload, [etags[number] for number in sorted(etags)])
        except BaseException:
            with suppress(AwsError, OSError):
                self._requests.send("DELETE", bucket, key, query={"uploadId": upload}).read()
            raise

    def _complete(self, bucket: str, key: str, upload: str, etags: Sequence[str]) -> str:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        try:
            with self._requests.send("POST", bucket, key, query={"uploadId": upload}, body=body) as response:
                answer = Xml(response.read())
            answer.raise_error()
            return answer.text("ETag").strip('"')
        except AwsError as error:
            # An earlier try may have succeeded without its answer reaching us.
            head = self.head(bucket, key) if error.code == "NoSuchUpload" else None
            if head is None or head.etag != _joined_etag(etags):
                raise
            return head.etag


class ObjectStream(io.RawIOBase):
    """The content of one object version (or a range of it), read in order. For one thread.

    A connection that breaks is made anew where it broke. If the object was replaced meanwhile, reading raises
    `AwsError` 412.
    """

    def __init__(
        self, requests: Requests, bucket: str, key: str, *, etag: str = "", offset: int = 0,
        size: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._requests = requests
        self._place = (bucket, key)
        self._etag = etag
        self._offset = offset
        self._left = size
        self._response: Response | None = None
        if size != 0:
            self._connect()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill *buffer* with what comes next; 0 at the end."""
        for attempt in range(_TRIES):
            if self._left == 0:
                return 0
            try:
                if self._response is None:
                    self._connect()
                assert self._response is not None  # noqa: S101 - made above
                view = memoryview(buffer).cast("B")
                count = self._response.readinto(view[: self._left] if self._left is not None else view)
            except (OSError, ValueError) as error:
                self._disconnect()
                if isinstance(error, ServerAway) or attempt == _TRIES - 1:
                    raise
                continue
            self._offset += count
            if self._left is not None:
                self._left -= count
            if not count or self._left == 0:
                self._left = 0
                self._disconnect()
            return count
        return 0

    def close(self) -> None:
        """Give the connection back."""
        self._disconnect()
        super().close()

    def _connect(self) -> None:
        headers: dict[str, str] = {}
        if self._left is not None:
            headers["Range"] = f"bytes={self._offset}-{self._offset + self._left - 1}"
        elif self._offset:
            headers["Range"] = f"bytes={self._offset}-"
        if self._etag:
            headers["If-Match"] = f'"{self._etag}"'
        self._response = self._requests.send("GET", *self._place, headers=headers)
        self._etag = self._etag or self._response.headers.get("etag", "").strip('"')
        if self._left is None:
            self._left = int(self._response.headers.get("content-length", "0"))

    def _disconnect(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


def _linked(head: ObjectHead, path: Path) -> bool:
    """Link the object version's file, if it is on this machine and in this file system."""
    try:
        os.link(head.path, path, follow_symlinks=False)
    except OSError:
        return False
    if path.is_file() and path.stat().st_size == head.size:
        return True
    path.unlink()
    return False


def _joined_etag(etags: Sequence[str]) -> str:
    try:
        digests = b"".join(bytes.fromhex(etag) for etag in etags)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"
