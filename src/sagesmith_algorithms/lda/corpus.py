"""The documents of LDA: counts of words, checked as they are read, kept in memory if they are not too many.

Work on the documents goes block by block, several blocks at a time in threads. Blocks do not depend on the number
of threads, and their results are added in order, so that the number of threads does not change the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, located
from sagesmith_algorithms.formats.readers import channel_batches

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Channel

__all__ = ["Block", "Corpus", "as_counts", "channel_counts"]

_BLOCK_DOCUMENTS = 4096
_KEPT_BYTES = 1 << 30

Passes = Callable[[int], Iterator[Any]]
T = TypeVar("T")


class Block:
    """Some documents.

    Attributes:
        counts: CSR float32 (n_docs, n_words).
        memory: what the caller keeps about the documents; empty on each pass over a corpus that is not kept.
    """

    def __init__(self, counts: Any) -> None:
        self.counts = counts
        self.memory: dict[str, npt.NDArray[Any]] = {}

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """The arrays of the matrix as the kernels take them: indptr, words, counts."""
        return self.counts.indptr, self.counts.indices, self.counts.data


class Corpus:
    """All documents.

    Args:
        passes: yields CSR matrices of counts, the same documents for each number of a pass.
        limit: documents that are kept in memory at most; more are read again in each pass.
        n_threads: blocks that are worked on at a time.
    """

    def __init__(self, passes: Passes, *, limit: int, n_threads: int) -> None:
        self._passes, self._limit, self._n_threads = passes, limit, n_threads
        self._n_read = 0
        self._kept: list[Block] | None = None
        self.n_documents = 0
        self.n_words_read = 0.0

    def map(self, work: Callable[[Block], T]) -> Iterator[T]:
        """Yield what *work* returns for each block, in the order of the blocks."""
        with ThreadPoolExecutor(self._n_threads, "lda") as pool:
            waiting: list[Block] = []
            for block in self._blocks():
                waiting.append(block)
                if len(waiting) == self._n_threads:
                    yield from pool.map(work, waiting)
                    waiting = []
            yield from pool.map(work, waiting)

    def total(self, work: Callable[[Block], Any]) -> Any:
        """Return the sum of what *work* returns for all blocks."""
        result: Any = None
        for part in self.map(work):
            if result is None:
                result = part
            else:
                result += part
        return result

    def _blocks(self) -> Iterator[Block]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Block] | None = []
        n_documents, n_words, size = 0, 0.0, 0
        for counts in self._passes(self._n_read):
            for start in range(0, counts.shape[0], _BLOCK_DOCUMENTS):
                block = Block(counts[start : start + _BLOCK_DOCUMENTS])
                n_documents += block.counts.shape[0]
                n_words += float(block.counts.data.sum(dtype=np.float64))
                size += 8 * block.counts.nnz
                if n_documents > self._limit or size > _KEPT_BYTES:
                    kept = None
                if kept is not None:
                    kept.append(block)
                yield block
        self._n_read += 1
        self._kept = kept
        self.n_documents, self.n_words_read = n_documents, n_words


def channel_counts(channel: Channel, feature_dim: int, epoch: int, n_threads: int) -> Iterator[Any]:
    """Yield the documents of *channel* as CSR matrices.

    Raises:
        DataError: a file is not what its content type says, or holds what is no count; names file and record.
    """
    for batch in channel_batches(channel, types.RECORDIO, epoch=epoch, n_threads=n_threads):
        with located(batch):
            counts = as_counts(batch, feature_dim)
        yield counts


def as_counts(batch: Batch, feature_dim: int) -> Any:
    """Return *batch* as a CSR matrix of counts, float32 (n_docs, feature_dim).

    Raises:
        DataError: rows have another width, or hold values that are negative, missing or infinite; names the row.
    """
    from scipy.sparse import csr_matrix

    width = batch.n_features
    if width > feature_dim or (width < feature_dim and not batch.is_sparse):
        hint = " In CSV without a label, say text/csv;label_size=0" if width == feature_dim - 1 else ""
        raise DataError(
            f"rows have {width} features, but feature_dim is {feature_dim}, the size of the vocabulary.{hint}",
            row=0,
        )
    counts = csr_matrix(batch.features, dtype=np.float32)
    wrong = np.flatnonzero(~((counts.data >= 0) & (counts.data < np.inf)))
    if wrong.size:
        at = int(np.searchsorted(counts.indptr, wrong[0], side="right")) - 1
        word, value = int(counts.indices[wrong[0]]), float(counts.data[wrong[0]])
        what = (
            f"word {word} has the count {value:g}"
            if np.isfinite(value)
            else "there are missing or infinite values"
        )
        raise DataError(f"{what}; counts of words are numbers from 0 on", row=at)
    indices, indptr = counts.indices.astype(np.int32, copy=False), counts.indptr.astype(np.int32, copy=False)
    return csr_matrix((counts.data, indices, indptr), shape=(counts.shape[0], feature_dim))
