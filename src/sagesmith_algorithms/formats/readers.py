"""Reading a channel: which reader its content type means, all of its files, in batches of the size asked for."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import csv, libsvm, parquet, plain, recordio
from sagesmith_algorithms.formats.batch import Batch, Origin, concatenated
from sagesmith_algorithms.formats.content_type import ContentType
from sagesmith_algorithms.formats.files import channel_files

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Channel

__all__ = ["ahead", "channel_batches", "file_batches", "rebatched"]


def channel_batches(
    channel: Channel,
    default: str,
    *,
    epoch: int = 0,
    label_size: int = 1,
    weighted: bool = False,
    n_threads: int = 1,
) -> Iterator[Batch]:
    """Yield all rows of *channel*.

    Args:
        channel: the channel; in Pipe mode the named pipe of *epoch* is read.
        default: the content type of a channel that names none.
        epoch: which pass over the data this is.
        label_size: columns of a CSV or Parquet file that are the label, unless the content type says otherwise.
        weighted: whether a column of weights follows the label in CSV and Parquet files.
        n_threads: threads to parse with.

    Raises:
        DataError: a file is not what the content type says; names it.
        CustomerError: the content type's parameters are wrong.
    """
    content_type = ContentType.parse(channel.content_type or default)
    text = content_type.parameters.get("label_size", str(label_size))
    if text not in ("0", "1"):
        raise CustomerError(
            f"label_size={text} in the content type of channel {channel.name!r}: expected 0 or 1."
        )
    is_pipe = channel.input_mode == "Pipe"
    paths = channel_files(channel.fifo(epoch) if is_pipe else channel.folder)
    n_bytes = sys.maxsize if is_pipe else sum(path.stat().st_size for path in paths)  # pipes are for much
    for path in paths:
        yield from file_batches(
            path,
            content_type.name,
            label_size=int(text),
            weighted=weighted,
            n_bytes=n_bytes,
            n_threads=n_threads,
        )


def file_batches(
    path: Path,
    content_type: str,
    *,
    label_size: int = 1,
    weighted: bool = False,
    n_bytes: int | None = None,
    n_threads: int = 1,
) -> Iterator[Batch]:
    """Yield the rows of one file of some that have *n_bytes* together, by default of it alone; see `channel_batches`."""
    compiled = plain.pays(path.stat().st_size if n_bytes is None else n_bytes)
    if content_type == types.RECORDIO:
        batches = recordio.read(path)
    elif content_type == types.LIBSVM:
        batches = libsvm.read(path, compiled=compiled, n_threads=n_threads)
    elif content_type == types.CSV:
        batches = csv.read(
            path, label_size=label_size, weighted=weighted, compiled=compiled, n_threads=n_threads
        )
    elif content_type == types.PARQUET:
        batches = parquet.read(path, label_size=label_size, weighted=weighted, n_threads=n_threads)
    else:
        raise DataError(f"the content type {content_type!r} cannot be read", str(path))
    first = 1
    for batch in batches:
        yield replace(batch, origins=(Origin(str(path), first, len(batch)),))
        first += len(batch)


def ahead(batches: Iterator[Batch], n: int = 4) -> Iterator[Batch]:
    """Yield *batches*, of which up to *n* are read in another thread while one is worked on."""
    waiting: queue.Queue[Batch | BaseException | None] = queue.Queue(n)
    left = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if left.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the batch was expected
            put(error)

    threading.Thread(target=read, name="reader", daemon=True).start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()


def rebatched(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Yield the same rows in batches of *size*; the last may be smaller."""
    rest: list[Batch] = []
    n_rest = 0
    for batch in batches:
        start = 0
        if n_rest:
            start = min(size - n_rest, len(batch))
            rest.append(batch.part(0, start))
            n_rest += start
            if n_rest < size:
                continue
            yield concatenated(rest)
            rest, n_rest = [], 0
        while len(batch) - start >= size:
            yield batch.part(start, start + size)
            start += size
        if start < len(batch):
            rest, n_rest = [batch.part(start, len(batch))], len(batch) - start
    if rest:
        yield concatenated(rest)
