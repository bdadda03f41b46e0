"""Parameters, and the steps that change them, of one host or of several that step together.

Several hosts make the very steps of one: each adds up the gradients of its share of the mini-batch, they exchange
those of the features that occur in it, and every host makes the same step with their sum.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.factorization_machines import kernels
from sagesmith_algorithms.factorization_machines.hyperparameters import BINARY
from sagesmith_algorithms.factorization_machines.rows import Rows

if TYPE_CHECKING:
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["Parameters", "Trainer"]

Array = npt.NDArray[Any]
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8
_LEAST_EPSILON: Final = 1e-30


class Parameters:
    """A model's bias, weights and factors.

    Attributes:
        bias: float64 (4,): the bias, its two moments, and the number of steps made.
        weights: float32 (n_features,).
        factors: float32 (n_features, n_factors rounded up to `kernels.LANES`); what was added is 0.
        n_factors: the number of factors.
    """

    def __init__(self, bias: float, weights: Array, factors: Array) -> None:
        self.n_factors = factors.shape[1]
        width = -(-self.n_factors // kernels.LANES) * kernels.LANES
        self.bias = np.array([bias, 0.0, 0.0, 0.0])
        self.weights = np.array(weights, np.float32)
        self.factors = np.zeros((len(weights), width), np.float32)
        self.factors[:, : self.n_factors] = factors

    @classmethod
    def initial(cls, values: Mapping[str, Any], rng: np.random.Generator) -> Parameters:
        """Return parameters as the hyperparameters say that they begin."""
        n_features, n_factors = values["feature_dim"], values["num_factors"]

        def begun(part: str, shape: tuple[int, ...]) -> Array:
            method = values[f"{part}_init_method"]
            if method == "normal":
                return rng.standard_normal(shape, np.float32) * np.float32(values[f"{part}_init_sigma"])
            if method == "uniform":
                scale = np.float32(values[f"{part}_init_scale"])
                return (rng.random(shape, np.float32) * 2 - 1) * scale
            return np.full(shape, values[f"{part}_init_value"], np.float32)

        bias = float(begun("bias", (1,))[0])
        return cls(bias, begun("linear", (n_features,)), begun("factors", (n_features, n_factors)))

    def scores(self, rows: Rows) -> Array:
        """Return the score of each of *rows*, float32 (n_samples,)."""
        out = np.empty(len(rows), np.float32)
        kernels.scores(
            rows.indptr, rows.indices, rows.values, self.weights, self.factors, float(self.bias[0]), out
        )
        return out


class Trainer:
    """Makes steps of Adam on *parameters*.

    Args:
        parameters: are changed.
        values: the hyperparameters.
        hosts: the hosts of the job, which all call the same methods in turn; None if there is but one.
    """

    def __init__(
        self,
        parameters: Parameters,
        values: Mapping[str, Any],
        hosts: Rendezvous | None = None,
    ) -> None:
        self._parameters = parameters
        self._hosts = hosts
        self._binary = values["predictor_type"] == BINARY
        self._size = int(values["mini_batch_size"])
        self._settings = np.array([
            values["bias_lr"], values["linear_lr"], values["factors_lr"],
            values["bias_wd"], values["linear_wd"], values["factors_wd"],
            *_BETAS, max(values.get("eps", _EPSILON), _LEAST_EPSILON),
            values.get("clip_gradient", 0.0), values.get("rescale_grad", 0.0),
        ], np.float64)  # fmt: skip
        weights, factors = parameters.weights, parameters.factors
        self._moments = (
            np.zeros_like(weights), np.zeros_like(factors), np.zeros_like(weights), np.zeros_like(factors),
        )  # fmt: skip
        self._slots = np.full(len(weights), -1, np.int32)
        self._buffers = self._new_buffers(0)

    def state(self) -> dict[str, Array]:
        """Return all that the next epoch depends on, beside rows and hyperparameters; the arrays are ours."""
        names = ("weight_first", "factor_first", "weight_second", "factor_second")
        parameters = self._parameters
        return {
            "bias": parameters.bias, "weights": parameters.weights, "factors": parameters.factors,
            **dict(zip(names, self._moments, strict=True)),
        }  # fmt: skip

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Go on where the trainer was whose `state` this is."""
        for name, array in self.state().items():
            array[...] = state[name]

    def epoch(self, windows: Iterator[Rows], rng: np.random.Generator) -> Iterator[Array]:
        """Make the steps of one pass over *windows*, whose rows *rng* puts in order.

        Yields what the first step's rows came to, and at last those of the pass, of all hosts (see `kernels.N_SUMS`);
        the errors are those before each step.
        """
        total = np.zeros(kernels.N_SUMS)
        hosts = self._hosts
        steps = self._alone(windows, rng) if hosts is None else self._together(windows, rng, hosts)
        for number, sums in enumerate(steps):
            total += sums[: kernels.N_SUMS]
            if number == 0:
                yield total.copy()
        yield total

    def _alone(self, windows: Iterator[Rows], rng: np.random.Generator) -> Iterator[Array]:
        first = True
        while (rows := next(windows, None)) is not None:
            order = rows.order(rng)
            for some in (order[: self._size], order[self._size :]) if first else (order,):
                if len(some):
                    yield self._steps(rows, some)
            first = False
            del rows, order, some  # a window goes before the next comes

    def _steps(self, rows: Rows, order: Array) -> Array:
        self._make_room(rows, self._size)
        sums = np.zeros(kernels.N_SUMS + 1)
        parameters = self._parameters
        kernels.steps(
            rows.indptr, rows.indices, rows.values, rows.labels, order, self._size, self._binary,
            self._slots, *self._buffers, parameters.weights, parameters.factors, *self._moments,
            parameters.bias, self._settings, sums,
        )  # fmt: skip
        return sums

    def _together(
        self, windows: Iterator[Rows], rng: np.random.Generator, hosts: Rendezvous
    ) -> Iterator[Array]:
        share = -(-self._size // len(hosts.hosts))
        batches = ((rows, some) for rows in windows for some in _parts(rows.order(rng), share))
        parameters = self._parameters
        while True:
            message = self._gradients(next(batches, None))
            received = [_Message(data, parameters) for data in hosts.exchange(message)]
            sums = functools.reduce(np.add, [one.sums for one in received])
            if not sums[0]:
                return
            self._room(sum(len(one.features) for one in received))
            n_touched = 0
            for one in received:
                n_touched = kernels.add(
                    one.features, one.weight_slopes, one.factor_slopes, n_touched, self._slots, *self._buffers
                )
            kernels.move(
                self._slots, *self._buffers, n_touched, sums[kernels.N_SUMS], int(sums[0]),
                parameters.weights, parameters.factors, *self._moments, parameters.bias, self._settings,
            )  # fmt: skip
            yield sums

    def _gradients(self, batch: tuple[Rows, Array] | None) -> bytes:
        """Return the gradients of *batch* as a message to the other hosts; of None, an empty one."""
        sums, n_touched = np.zeros(kernels.N_SUMS + 1), 0
        parameters = self._parameters
        if batch is not None:
            rows, some = batch
            self._make_room(rows, len(some))
            n_touched = kernels.gradients(
                rows.indptr, rows.indices, rows.values, rows.labels, some, parameters.weights, parameters.factors,
                float(parameters.bias[0]), self._binary, self._slots, *self._buffers, sums,
            )  # fmt: skip
        touched, weight_slopes, factor_slopes = self._buffers
        self._slots[touched[:n_touched]] = -1
        arrays = (sums, touched[:n_touched], weight_slopes[:n_touched], factor_slopes[:n_touched])
        return b"".join(array.tobytes() for array in arrays)

    def _make_room(self, rows: Rows, size: int) -> None:
        """Make room for the features of any *size* of *rows*."""
        self._room(min(len(self._slots), len(rows.indices), size * rows.longest))

    def _room(self, n: int) -> None:
        if n > len(self._buffers[0]):
            self._buffers = self._new_buffers(n)

    def _new_buffers(self, n: int) -> tuple[Array, Array, Array]:
        width = self._parameters.factors.shape[1]
        return np.empty(n, np.int32), np.empty(n, np.float32), np.empty((n, width), np.float32)


class _Message:
    """What `Trainer._gradients` packed."""

    def __init__(self, data: bytes, parameters: Parameters) -> None:
        width = parameters.factors.shape[1]
        raw = np.frombuffer(bytearray(data), np.uint8)  # the kernels want arrays that may be written
        head = 8 * (kernels.N_SUMS + 1)
        n = (len(raw) - head) // (4 * (2 + width))
        self.sums = raw[:head].view(np.float64)
        self.features = raw[head : head + 4 * n].view(np.int32)
        self.weight_slopes = raw[head + 4 * n : head + 8 * n].view(np.float32)
        self.factor_slopes = raw[head + 8 * n :].view(np.float32).reshape(n, width)


def _parts(order: Array, size: int) -> Iterator[Array]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
