"""Uploads of data that is still being made: parts go up while the next are written, and none waits for the whole.

What fits into one part is one request; more becomes a multipart upload with a few parts on their way at a time,
so that memory holds some tens of megabytes whatever the size. A failed upload leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from sagesmith.sdk._errors import SdkError

if TYPE_CHECKING:
    from sagesmith.sdk._session import Session

__all__ = ["ObjectWriter", "download", "read_object", "split_uri", "upload_file", "upload_folder"]

_PART: Final = 16 << 20
_AT_A_TIME: Final = 3


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://bucket/key`` URI.

    Raises:
        SdkError: *uri* is none.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise SdkError(f"{uri!r} is not an S3 URI: it has the form s3://bucket/key.")
    return bucket, key


class ObjectWriter:
    """A file that is written to S3. Leaving its `with` block completes the object; an error in it discards it."""

    closed = False

    def __init__(self, session: Session, uri: str) -> None:
        self._session = session
        self.uri = uri
        self._bucket, self._key = split_uri(uri)
        self._buffer = bytearray()
        self._upload_id = ""
        self._parts: list[Future[dict[str, Any]]] = []
        self._pool: ThreadPoolExecutor | None = None
        self.size_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append *data*; blocks while several parts are on their way."""
        n_bytes = memoryview(data).nbytes
        self._buffer += data
        self.size_bytes += n_bytes
        while len(self._buffer) >= _PART:
            part, self._buffer = bytes(self._buffer[:_PART]), self._buffer[_PART:]
            self._send(part)
        return n_bytes

    def tell(self) -> int:
        """Return how much was written."""
        return self.size_bytes

    def flush(self) -> None:
        """Do nothing: parts have a least size."""

    def writable(self) -> bool:
        """Say that this can be written."""
        return True

    def readable(self) -> bool:
        """Say that this cannot be read."""
        return False

    def seekable(self) -> bool:
        """Say that only appending is possible."""
        return False

    def _send(self, part: bytes) -> None:
        if not self._upload_id:
            answer = self._session.call("s3", "create_multipart_upload", Bucket=self._bucket, Key=self._key)
            self._upload_id = answer["UploadId"]
            self._pool = ThreadPoolExecutor(_AT_A_TIME)
        assert self._pool is not None  # noqa: S101
        on_their_way = [future for future in self._parts if not future.done()]
        if len(on_their_way) >= _AT_A_TIME:
            on_their_way[0].result()
        self._parts.append(self._pool.submit(self._put_part, len(self._parts) + 1, part))

    def _put_part(self, number: int, part: bytes) -> dict[str, Any]:
        answer = self._session.call(
            "s3",
            "upload_part",
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=part,
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def close(self) -> None:
        """Complete the object."""
        if self.closed:
            return
        self.closed = True
        if not self._upload_id:
            self._session.call(
                "s3", "put_object", Bucket=self._bucket, Key=self._key, Body=bytes(self._buffer)
            )
            return
        try:
            if self._buffer:
                self._send(bytes(self._buffer))
            parts = [future.result() for future in self._parts]
            self._session.call(
                "s3",
                "complete_multipart_upload",
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            self._abort()
            raise
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def _abort(self) -> None:
        if self._upload_id:
            with contextlib.suppress(SdkError):
                self._session.call(
                    "s3",
                    "abort_multipart_upload",
                    Bucket=self._bucket,
                    Key=self._key,
                    UploadId=self._upload_id,
                )

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self.close()
            return
        self.closed = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._abort()


def upload_file(session: Session, path: Path, uri: str) -> None:
    """Upload a file as it is.

    Raises:
        SdkError: it cannot be read.
    """
    try:
        with path.open("rb") as file, ObjectWriter(session, uri) as target:
            while piece := file.read(_PART):
                target.write(piece)
    except OSError as error:
        if isinstance(error, SdkError):
            raise
        raise SdkError(f"{path} cannot be read: {error.strerror}.") from error


def upload_folder(session: Session, folder: Path, uri: str) -> int:
    """Upload all files below *folder*, keeping their paths; return how many."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise SdkError(f"The folder {folder} holds no file.")
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for done in [
            pool.submit(
                upload_file, session, path, f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}"
            )
            for path in files
        ]:
            done.result()
    return len(files)


def read_object(session: Session, uri: str) -> bytes:
    """Return the bytes of an object."""
    bucket, key = split_uri(uri)
    body: bytes = session.call("s3", "get_object", Bucket=bucket, Key=key)["Body"].read()
    return body


def download(session: Session, uri: str, file: IO[bytes]) -> None:
    """Write the bytes of an object to *file*, piece by piece."""
    for piece in _pieces(session, uri):
        file.write(piece)


def _pieces(session: Session, uri: str) -> Iterator[bytes]:
    bucket, key = split_uri(uri)
    body = session.call("s3", "get_object", Bucket=bucket, Key=key)["Body"]
    yield from body.iter_chunks(1 << 20)
