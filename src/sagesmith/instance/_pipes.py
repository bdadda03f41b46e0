"""Pipe mode: the objects of a channel streamed through named pipes, a new one for each epoch.

The container reads ``input/data/{channel}_0``, then ``_1``, and so on; each gives all objects once, one after the
other, or each as a record if the channel wraps them. The next epoch's pipe is there before the last one ends.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, cast

from sagesmith.errors import AwsError
from sagesmith.instance._objects import DataError, Objects, split_uri
from sagesmith.instance._staging import Item, list_items
from sagesmith.instance.spec import ChannelSpec
from sagesmith.store.client import ServerAway

__all__ = ["Pipe"]

_LOOK_S: Final = 0.005
_PIECE: Final = 1 << 20
_RECORD: Final = struct.Struct("<II")
_MAGIC: Final = 0xCED7230A
_LONGEST_RECORD: Final = (1 << 29) - 1
"""RecordIO keeps three bits of the length for records in several parts."""


class Pipe:
    """Feeds one channel. Making it lists the objects and makes the first pipe; `start` begins to feed.

    Raises:
        DataError: there is nothing under the channel's URI.
    """

    def __init__(
        self, objects: Objects, channel: ChannelSpec, target: Path, *, hosts: Sequence[str], host: str
    ) -> None:
        self._objects = objects
        self._channel = channel
        self._target = target
        self._items = list_items(objects, channel, hosts, host)
        self._closed = threading.Event()
        self._say: Callable[[str], None] = lambda text: None
        self._make(0)

    def start(self, say: Callable[[str], None]) -> None:
        """Feed until :meth:`close`, on a thread; *say* gets a line for the log when that cannot go on."""
        self._say = say
        threading.Thread(target=self._feed, name=f"pipe-{self._channel.name}", daemon=True).start()

    def close(self) -> None:
        """Stop feeding: nobody reads any more."""
        self._closed.set()

    def _feed(self) -> None:
        epoch = 0
        try:
            while (sink := self._open(epoch)) is not None:
                self._make(epoch + 1)
                try:
                    with os.fdopen(sink, "wb", _PIECE) as file:
                        for piece in self._content(epoch):
                            file.write(piece)
                except BrokenPipeError:  # it read as much as it wanted of this epoch
                    pass
                epoch += 1
        except (AwsError, ServerAway, DataError, EOFError, OSError) as error:
            if not self._closed.is_set():
                self._say(f"ERROR: channel {self._channel.name!r} ended in epoch {epoch}: {error}")

    def _make(self, epoch: int) -> None:
        path = self._path(epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path, 0o644)

    def _path(self, epoch: int) -> Path:
        return self._target / f"{self._channel.name}_{epoch}"

    def _open(self, epoch: int) -> int | None:
        """Open the pipe of *epoch* as soon as somebody reads it; None when closed."""
        while not self._closed.is_set():
            try:
                sink = os.open(self._path(epoch), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                self._closed.wait(_LOOK_S)
                continue
            os.set_blocking(sink, True)
            return sink
        return None

    def _content(self, epoch: int) -> Iterator[bytes]:
        if self._channel.s3_data_type == "AugmentedManifestFile":
            yield from self._attributes()
            return
        items = list(self._items)
        if self._channel.shuffle_seed is not None:
            random.Random(self._channel.shuffle_seed + epoch).shuffle(items)  # noqa: S311 (an order, no secret)
        for item in items:
            if self._channel.record_wrapper == "RecordIO":
                yield from _record(b"".join(self._pieces(item.bucket, item.key)))
            else:
                yield from self._pieces(item.bucket, item.key)

    def _attributes(self) -> Iterator[bytes]:
        """The values that the channel names, line by line of the manifest; those of ``-ref`` names are objects."""
        manifest: Item = self._items[0]
        for line in self._objects.read(manifest.bucket, manifest.key).splitlines():
            if not line.strip():
                continue
            entry = json.loads(line)
            for name in self._channel.attribute_names:
                if name not in entry:
                    raise DataError(f"a line of {self._channel.s3_uri} has no attribute {name!r}")
                value = entry[name]
                if name.endswith("-ref"):
                    content = b"".join(self._pieces(*split_uri(str(value))))
                else:
                    content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                yield from _record(content) if self._channel.record_wrapper == "RecordIO" else (content,)

    def _pieces(self, bucket: str, key: str) -> Iterator[bytes]:
        with self._objects.open_stream(bucket, key) as stream:
            source: IO[bytes] = io.BufferedReader(stream, _PIECE)
            if self._channel.compression == "Gzip":
                source = cast("IO[bytes]", gzip.GzipFile(fileobj=source))
            while piece := source.read(_PIECE):
                yield piece


def _record(content: bytes) -> Iterator[bytes]:
    """*content* as one RecordIO record: magic, length, content, zeros up to a multiple of four."""
    if len(content) > _LONGEST_RECORD:
        raise DataError(f"an object of {len(content)} bytes is too large for a RecordIO record")
    yield _RECORD.pack(_MAGIC, len(content))
    yield content
    yield bytes(-len(content) % 4)
