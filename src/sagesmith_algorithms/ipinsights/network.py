"""The network of IP Insights: a vector for each entity, one for each address, and how likely they meet: their product.

An entity's name is hashed to one of `num_entity_vectors` rows. An address is the sum of vectors for its prefixes of
several lengths, so that what is learned of a network holds for addresses in it that were never seen; then come
`num_ip_encoder_layers` fully connected layers, each of which adds to what it gets (He et al., "Deep Residual Learning",
2016), so that many of them can be trained. Parameters are trained by Adam, of tables only the rows a batch touches.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.ipinsights import kernels

__all__ = ["Network", "entity_rows", "prefix_rows", "table_bytes"]

_PREFIXES = (8, 12, 16, 20, 24, 32)
_FEWEST_ROWS, _MOST_ROWS = 1 << 12, 1 << 17
_CHUNK_FLOATS = 1 << 23
_FLOOR = np.float32(1e-8)

Ints = npt.NDArray[np.int64]
Addresses = npt.NDArray[np.uint32]


def entity_rows(names: Iterable[str], n_vectors: int) -> Ints:
    """Return the row of each entity."""
    return np.fromiter((zlib.crc32(name.encode()) % n_vectors for name in names), np.int64)


def prefix_rows(addresses: Addresses, n_vectors: int) -> Ints:
    """Return the rows of each address in the table of prefixes, (n, number of prefix lengths)."""
    columns, first = [], 0
    for length, n_rows in _levels(n_vectors):
        prefix = (addresses >> np.uint32(32 - length)).astype(np.uint64)
        if n_rows < 1 << length:  # Fibonacci hashing: the upper bits of a product with 2**64 / golden ratio
            prefix = (prefix * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - n_rows.bit_length() + 1)
        columns.append(prefix.astype(np.int64) + first)
        first += n_rows
    return np.ascontiguousarray(np.stack(columns, axis=1))


def table_bytes(values: Mapping[str, Any]) -> int:
    """Return the bytes that the parameters and what Adam keeps of them take."""
    rows = values["num_entity_vectors"] + sum(n for _, n in _levels(values["num_entity_vectors"]))
    layers = values["num_ip_encoder_layers"] * (values["vector_dim"] + 1)
    return int(16 * values["vector_dim"] * (rows + layers))


def _levels(n_vectors: int) -> list[tuple[int, int]]:
    """Return each prefix's length and number of rows, a power of two: about as many as there are entities."""
    most = min(max(1 << (n_vectors - 1).bit_length(), _FEWEST_ROWS), _MOST_ROWS)
    return [(length, min(1 << length, most)) for length in _PREFIXES]


class _Table:
    """Parameters of which a batch touches few rows."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self._gradients, self._means, self._squares = (np.zeros_like(values) for _ in range(3))
        self._touches = np.zeros(len(values), np.uint32)
        self._touched = np.empty(len(values), np.int64)
        self._n_touched = 0
        self.counts = np.zeros(len(values), np.float32)  # of steps that moved a row since the hosts last met
        self.before = values  # when they last met

    def rows(self, rows: Ints) -> Floats:
        out = np.empty((len(rows), self.values.shape[1]), np.float32)
        kernels.gather(self.values, rows, out)
        return out

    def add(self, rows: Ints, gradients: Floats) -> None:
        self._n_touched = kernels.scatter(
            self._gradients, self._touches, self._touched, self._n_touched, rows,
            np.ascontiguousarray(gradients),
        )  # fmt: skip

    def step(self, rate: float, decay: float) -> None:
        touched = self._touched[: self._n_touched]
        kernels.adam(
            self.values, self._gradients, self._means, self._squares, touched,
            np.float32(rate), np.float32(decay), _FLOOR,
        )  # fmt: skip
        self.counts[touched] += 1
        self._touches[touched] = 0
        self._n_touched = 0

    def settle(self, rows: Ints) -> None:
        """Begin anew to count moves, of which there were some of *rows*."""
        self.before[rows] = self.values[rows]
        self.counts[:] = 0


class Network:
    """The parameters, their gradients and their steps.

    Args:
        values: the hyperparameters.
        rng: draws the first parameters; equal state gives equal ones.
    """

    def __init__(self, values: Mapping[str, Any], rng: np.random.Generator) -> None:
        dim = values["vector_dim"]
        scale = np.float32(1 / math.sqrt(dim))
        n_prefixes = sum(n for _, n in _levels(values["num_entity_vectors"]))

        def drawn(n_rows: int, factor: float = 1.0) -> Floats:
            result: Floats = rng.standard_normal((n_rows, dim), np.float32) * np.float32(factor * scale)
            return result

        bias = np.zeros((1, dim), np.float32)
        self._set(
            values,
            _Table(drawn(values["num_entity_vectors"])),
            _Table(drawn(n_prefixes, 1 / math.sqrt(len(_PREFIXES)))),
            [_Table(np.concatenate([drawn(dim), bias])) for _ in range(values["num_ip_encoder_layers"])],
        )

    @classmethod
    def of(cls, values: Mapping[str, Any], entities: Floats, prefixes: Floats, layers: Floats) -> Network:
        """Return a network of given parameters, which fit the hyperparameters *values*.

        Raises:
            ValueError: they do not fit each other.
        """
        dim, n_prefixes = values["vector_dim"], sum(n for _, n in _levels(values["num_entity_vectors"]))
        shapes = [
            (values["num_entity_vectors"], dim),
            (n_prefixes, dim),
            (values["num_ip_encoder_layers"], dim + 1, dim),
        ]
        if [part.shape for part in (entities, prefixes, layers)] != shapes:
            raise ValueError("its arrays do not fit its hyperparameters")
        network = cls.__new__(cls)
        tables = [_Table(np.ascontiguousarray(part, np.float32)) for part in (entities, prefixes, *layers)]
        network._set(values, tables[0], tables[1], tables[2:])
        return network

    def _set(
        self, values: Mapping[str, Any], entities: _Table, prefixes: _Table, layers: list[_Table]
    ) -> None:
        self.n_vectors: int = values["num_entity_vectors"]
        self._dim = values["vector_dim"]
        self._rate, self._decay = values["learning_rate"], values["weight_decay"]
        self.entities, self.prefixes, self.layers = entities, prefixes, layers
        self._all_rows = np.arange(self._dim + 1)[:, None]
        self.n_steps = 0
        self.n_new_steps = 0  # since the hosts last met

    def remember(self) -> None:
        """Keep the parameters as they are now, to tell other hosts how they moved since."""
        for table in self.tables:
            table.before = table.values.copy()

    @property
    def tables(self) -> tuple[_Table, ...]:
        """All parameters."""
        return (self.entities, self.prefixes, *self.layers)

    def entity_vectors(self, rows: Ints) -> Floats:
        """Return the vectors of entities, (n, dim)."""
        return self.entities.rows(rows[:, None])

    def address_vectors(self, addresses: Addresses) -> Floats:
        """Return the vectors of addresses, (n, dim)."""
        return self._encoded(self.prefixes.rows(prefix_rows(addresses, self.n_vectors)))[-1]

    def scores(self, entities: Ints, addresses: Addresses) -> Floats:
        """Return the products of the vectors of entities and addresses, (n,)."""
        result: Floats = np.einsum("ij,ij->i", self.entity_vectors(entities), self.address_vectors(addresses))
        return result

    def learn(
        self, entities: Ints, addresses: Addresses, n_random: int, n_shuffled: int, rng: np.random.Generator
    ) -> float:
        """Make one step on pairs that met, against addresses drawn at random and those of the others. Return the loss."""
        chunk = max(16, min(len(entities), _CHUNK_FLOATS // (self._dim * (1 + n_random + n_shuffled))))
        scale = 1 / (len(entities) * (1 + n_random + n_shuffled))
        loss = sum(
            self._gradients_of(entities[start : start + chunk], addresses[start : start + chunk],
                               n_random, n_shuffled, scale, rng)
            for start in range(0, len(entities), chunk)
        )  # fmt: skip
        self.n_steps += 1
        self.n_new_steps += 1
        rate = self._rate * math.sqrt(1 - 0.999**self.n_steps) / (1 - 0.9**self.n_steps)
        for table in self.tables:
            table.step(rate, self._decay)
        return float(loss)

    def _gradients_of(
        self, entities: Ints, addresses: Addresses, n_random: int, n_shuffled: int, scale: float,
        rng: np.random.Generator,
    ) -> float:  # fmt: skip
        n = len(entities)
        drawn = rng.integers(0, 1 << 32, n * n_random, np.uint32)
        rows = prefix_rows(np.concatenate([addresses, drawn]), self.n_vectors)
        given = entities[:, None]
        left, steps = self.entity_vectors(entities), self._encoded(self.prefixes.rows(rows))
        right = steps[-1]
        d_left, d_right = np.zeros_like(left), np.zeros_like(right)
        loss = 0.0
        orders = [np.arange(n)] + [np.arange(n * (r + 1), n * (r + 2)) for r in range(n_random)]
        orders += [rng.permutation(n) for _ in range(n_shuffled)]
        for number, order in enumerate(orders):
            other = right[order]
            score = np.einsum("ij,ij->i", left, other)
            sign = np.float32(-1 if number == 0 else 1)
            part = sign / (1 + np.exp(np.clip(-sign * score, -60, 60)))
            part = (part * np.float32(scale))[:, None]
            loss += scale * float(np.logaddexp(0, sign * score).sum(dtype=np.float64))
            d_left += part * other
            d_right[order] += part * left
        self.entities.add(given, d_left)
        for layer, before, after in zip(
            reversed(self.layers), reversed(steps[:-1]), reversed(steps[1:]), strict=True
        ):
            active = d_right * (after > before)
            weights = layer.values[:-1]
            gradient = np.concatenate([before.T @ active, active.sum(axis=0, keepdims=True)])
            layer.add(self._all_rows, gradient)
            d_right = d_right + active @ weights.T
        self.prefixes.add(rows, d_right)
        return loss

    def _encoded(self, vectors: Floats) -> list[Floats]:
        """Return what goes into each layer, and what comes out of the last."""
        steps = [vectors]
        for layer in self.layers:
            steps.append(
                steps[-1] + np.maximum(steps[-1] @ layer.values[:-1] + layer.values[-1], np.float32(0))
            )
        return steps
