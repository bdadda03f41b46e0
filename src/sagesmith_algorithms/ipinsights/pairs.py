"""Pairs of entity and IPv4 address: read from CSV, kept as numbers in memory, or read again if they are too many."""

from __future__ import annotations

import csv as python_csv
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.files import channel_files, line_blocks
from sagesmith_algorithms.ipinsights.network import Addresses, Ints, entity_rows

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Channel

__all__ = ["Pairs", "addresses_of", "channel_pairs", "encoded", "parse_csv"]

_KEPT_BYTES = 1 << 30

Passes = Callable[[int], Iterator[tuple[Ints, Addresses]]]


class Pairs:
    """All pairs that *passes* yields (for each number of a pass), in batches and in random order."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._kept: list[tuple[Ints, Addresses]] | None = None
        self._n_read = 0
        self.n_pairs = 0

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Ints, Addresses]]:
        """Yield batches of *size* (the last may be smaller), shuffled: all of them, or block by block if they are too many."""
        rest: tuple[Ints, Addresses] | None = None
        for block in self._blocks():
            entities, addresses = block if rest is None else _joined([rest, block])
            order = rng.permutation(len(entities))
            whole = len(order) - len(order) % size
            for start in range(0, whole, size):
                chosen = order[start : start + size]
                yield entities[chosen], addresses[chosen]
            rest = entities[order[whole:]], addresses[order[whole:]]
        if rest is not None and len(rest[0]):
            yield rest

    def _blocks(self) -> Iterator[tuple[Ints, Addresses]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[tuple[Ints, Addresses]] | None = []
        waiting: list[tuple[Ints, Addresses]] = []
        size = n_pairs = 0
        for block in self._passes(self._n_read):
            n_pairs += len(block[0])
            size += 12 * len(block[0])
            if kept is not None:
                kept.append(block)
            else:
                waiting = [block]
            if size > _KEPT_BYTES and kept is not None:
                waiting, kept = [_joined(kept)], None
            if kept is None:
                yield from waiting
        self.n_pairs = n_pairs
        self._n_read += 1
        if kept:
            self._kept = [_joined(kept)]
            yield self._kept[0]


def channel_pairs(channel: Channel, n_vectors: int) -> Passes:
    """Return what yields the pairs of *channel*.

    Raises (when they are read):
        DataError: a line is not ``entity,address``; names file and line.
    """

    def passes(number: int) -> Iterator[tuple[Ints, Addresses]]:
        for path in channel_files(channel.fifo(number) if channel.input_mode == "Pipe" else channel.folder):
            yield from _file_pairs(path, n_vectors)

    return passes


def encoded(rows: Iterable[Sequence[str]], n_vectors: int, where: str) -> tuple[Ints, Addresses]:
    """Return the pairs of *rows* as numbers: the entities' rows and the addresses."""
    names, texts = [], []
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(f"record {number} has {len(row)} values; expected entity and IPv4 address", where)
        names.append(str(row[0]))
        texts.append(str(row[1]).strip())
    return entity_rows(names, n_vectors), addresses_of(texts, where, "record", 1)


def parse_csv(body: bytes, where: str) -> list[list[str]]:
    """Return the rows of CSV text; empty lines are none."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error}", where) from None
    return [row for row in python_csv.reader(text.splitlines()) if row]


def addresses_of(texts: Sequence[str], where: str, what: str, first: int) -> Addresses:
    """Return IPv4 addresses as numbers.

    Raises:
        DataError: one is none; *what* (line or record) is counted from *first*.
    """
    parse = socket.inet_pton
    try:
        packed = b"".join([parse(socket.AF_INET, text) for text in texts])
    except (OSError, ValueError, UnicodeError):
        for number, text in enumerate(texts, first):
            try:
                parse(socket.AF_INET, text)
            except (OSError, ValueError, UnicodeError):
                shown = text if len(text) <= 60 else text[:60] + "..."
                raise DataError(
                    f"{what} {number}: {shown!r} is not an IPv4 address such as 192.0.2.1; expected entity,address "
                    "without a header",
                    where,
                ) from None
        raise
    return np.frombuffer(packed, ">u4").astype(np.uint32)


def _file_pairs(path: Path, n_vectors: int) -> Iterator[tuple[Ints, Addresses]]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    for block, _, before in line_blocks(path):
        try:
            table = arrow_csv.read_csv(
                pa.py_buffer(block),
                read_options=arrow_csv.ReadOptions(column_names=["entity", "ip"], use_threads=False),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={"entity": pa.string(), "ip": pa.string()}
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise _ragged(block, str(path), before + 1) or DataError(str(error), str(path)) from None
        if table.num_rows:
            yield _numbers(table, n_vectors, str(path), before + 1)


def _numbers(table: Any, n_vectors: int, where: str, line: int) -> tuple[Ints, Addresses]:
    """Return the pairs of an Arrow table; each distinct text is looked at once."""
    import pyarrow as pa

    columns = []
    for name in ("entity", "ip"):
        column = table.column(name).dictionary_encode().unify_dictionaries()
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        columns.append(
            (chunks[0].dictionary.to_pylist(), np.concatenate([c.indices.to_numpy() for c in chunks]))
        )
    (names, of_name), (texts, of_text) = columns
    try:
        distinct = addresses_of([text.strip() for text in texts], where, "line", 0)
    except DataError:
        every = [text.strip() for text in table.column("ip").cast(pa.string()).to_pylist()]
        addresses_of(every, where, "line", line)
        raise
    return entity_rows(names, n_vectors)[of_name], distinct[of_text]


def _ragged(block: bytes, where: str, first: int) -> DataError | None:
    for number, text in enumerate(block.splitlines(), first):
        try:
            row = next(python_csv.reader([text.decode()]), [])
        except (UnicodeDecodeError, python_csv.Error) as error:
            return DataError(f"line {number} cannot be read: {error}", where)
        if row and len(row) != 2:
            return DataError(
                f"line {number} has {len(row)} columns; expected two: entity,IPv4 address", where
            )
    return None


def _joined(parts: list[tuple[Ints, Addresses]]) -> tuple[Ints, Addresses]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
