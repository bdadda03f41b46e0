"""fastText's file of a model (``.bin``, version 12), read and written without fastText.

::

    i32 magic, i32 version, 12 x i32 settings, f64 sampling threshold
    i32 size, i32 words, i32 labels, i64 tokens, i64 pruned (-1), then for each: name, 0, i64 count, i8 kind
    u8 quantized, i64 rows, i64 columns, f32 values (inputs: words, then buckets); the same again (outputs)

Buckets that no text of the training touched are 0, and are holes in the file: it takes no more disk than what was learned.

Source: facebookresearch/fastText, `src/fasttext.cc`, FastText::saveModel; `src/dictionary.cc`, Dictionary::save; `src/args.cc`.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Floats

__all__ = ["CBOW", "END", "SKIPGRAM", "SUPERVISED", "Model", "dump", "load", "subword_buckets", "word_hash"]

CBOW, SKIPGRAM, SUPERVISED = 1, 2, 3
END: Final = "</s>"
_MAGIC, _VERSION = 793712314, 12
_HEAD = struct.Struct("<ii12id")
_DICTIONARY = struct.Struct("<iiiqq")
_ENTRY = struct.Struct("<qb")
_MATRIX = struct.Struct("<?qq")


@dataclass(slots=True)
class Model:
    """A model.

    Attributes:
        kind: CBOW, SKIPGRAM or SUPERVISED.
        words: the words, in the order of the rows of `inputs`.
        counts: how often each occurs, those of the labels following.
        labels: the labels, in the order of the rows of `outputs`.
        inputs: float32 (n_words + n_buckets, dim), or for writing (n_words + len(used), dim).
        outputs: float32 (n_words or n_labels, dim).
        n_buckets: the number of buckets.
        used: the buckets that the rows of `inputs` after the words belong to; None if these are all buckets.
        shortest: letters of the shortest part of a word that has a bucket; 0 if none has.
        longest: letters of the longest.
        word_ngrams: words of the longest run that has a bucket.
        loss: 2 for negative sampling, 3 for softmax.
        settings: window, epochs, min_count, negatives: not needed to predict.
        threshold: the sampling threshold.
    """

    kind: int
    words: list[str]
    counts: list[int]
    labels: list[str]
    inputs: Floats
    outputs: Floats
    n_buckets: int = 0
    used: npt.NDArray[np.int64] | None = None
    shortest: int = 0
    longest: int = 0
    word_ngrams: int = 1
    loss: int = 2
    settings: tuple[int, int, int, int] = (5, 5, 5, 5)
    threshold: float = 1e-4
    index: dict[str, int] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """The length of vectors."""
        return int(self.inputs.shape[1])


def dump(model: Model, path: Path) -> None:
    """Write *model*; `fasttext.load_model` reads it."""
    window, epochs, min_count, negatives = model.settings
    with path.open("wb") as file:
        file.write(
            _HEAD.pack(
                _MAGIC, _VERSION, model.dim, window, epochs, min_count, negatives, model.word_ngrams, model.loss, model.kind,
                model.n_buckets, model.shortest, model.longest, 100, model.threshold,
            )
        )  # fmt: skip
        names = [*model.words, *model.labels]
        file.write(_DICTIONARY.pack(len(names), len(model.words), len(model.labels), sum(model.counts), -1))
        for number, (name, count) in enumerate(zip(names, model.counts, strict=True)):
            file.write(name.encode() + b"\0" + _ENTRY.pack(count, number >= len(model.words)))
        n_words = len(model.words)
        file.write(_MATRIX.pack(False, n_words + model.n_buckets, model.dim))
        file.write(model.inputs[:n_words].tobytes())
        _write_buckets(file, model)
        file.write(_MATRIX.pack(False, *model.outputs.shape))
        file.write(model.outputs.tobytes())


def load(path: Path) -> Model:
    """Return the model in *path*, of this package or of fastText; its matrices are read when they are used.

    Raises:
        DataError: it is not such a file, is cut short, or is quantized.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _parsed(data)
    except (struct.error, ValueError, IndexError, OSError) as error:
        raise DataError(f"is not a model of fastText: {error}", path.name) from error


def word_hash(word: str) -> int:
    """Return fastText's hash of *word*: FNV-1a of 32 bits, over signed bytes."""
    h = 2166136261
    for byte in word.encode():
        h = ((h ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return h


def subword_buckets(word: str, shortest: int, longest: int, n_buckets: int) -> list[int]:
    """Return the buckets of all parts of ``<word>`` of *shortest* to *longest* letters."""
    if not n_buckets or not longest:
        return []
    text = f"<{word}>"
    return [
        word_hash(text[start:end]) % n_buckets
        for start in range(len(text))
        for end in range(start + max(shortest, 1), min(start + longest, len(text)) + 1)
        if not (end - start == 1 and (start == 0 or end == len(text)))
    ]


def _write_buckets(file: BinaryIO, model: Model) -> None:
    rows, start, width = model.inputs[len(model.words) :], file.tell(), 4 * model.dim
    if model.used is None:
        file.write(rows.tobytes())
        return
    order = np.argsort(model.used)
    buckets = model.used[order]
    for run in np.split(np.arange(len(order)), np.flatnonzero(np.diff(buckets) != 1) + 1):
        if len(run):
            file.seek(start + int(buckets[run[0]]) * width)
            file.write(rows[order[run]].tobytes())
    file.seek(start + model.n_buckets * width)


def _parsed(data: Any) -> Model:
    magic, version, dim, window, epochs, min_count, negatives, ngrams, loss, kind, _, shortest, longest, _, threshold = (
        _HEAD.unpack_from(data)
    )  # fmt: skip
    if magic != _MAGIC:
        raise ValueError("it does not begin with the magic number")
    if version not in (11, 12):
        raise ValueError(f"its version is {version}; 11 and 12 can be read")
    if version == 11 and kind == SUPERVISED:
        longest = 0
    at = _HEAD.size
    size, n_words, n_labels, _, pruned = _DICTIONARY.unpack_from(data, at)
    at += _DICTIONARY.size
    if pruned >= 0:
        raise ValueError("it is quantized; give the model as it was before")
    names, counts = [], []
    for _ in range(size):
        end = data.find(b"\0", at)
        if end < 0:
            raise ValueError("a word is cut short")
        names.append(data[at:end].decode("utf-8", "replace"))
        counts.append(_ENTRY.unpack_from(data, end + 1)[0])
        at = end + 1 + _ENTRY.size
    matrices = []
    for _ in range(2):
        quantized, rows, columns = _MATRIX.unpack_from(data, at)
        if quantized:
            raise ValueError("it is quantized; give the model as it was before")
        at += _MATRIX.size
        if rows < 0 or columns != dim or at + 4 * rows * columns > len(data):
            raise ValueError("a matrix is cut short")
        matrices.append(np.frombuffer(data, "<f4", rows * columns, at).reshape(rows, columns))
        at += 4 * rows * columns
    if len(matrices[0]) < n_words or n_words + n_labels != size:
        raise ValueError("its parts do not fit each other")
    return Model(
        kind, names[:n_words], counts, names[n_words:], matrices[0], matrices[1], len(matrices[0]) - n_words, None,
        shortest, longest, ngrams, loss, (window, epochs, min_count, negatives), threshold,
        {name: number for number, name in enumerate(names[:n_words])},
    )  # fmt: skip
