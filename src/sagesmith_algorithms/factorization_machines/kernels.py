"""The inner loops of factorization machines, over rows in CSR form.

The score of a row x is ``bias + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j``: a weight w and some factors v for
each feature. A step touches only the features that occur in its rows: their gradients stand in a small matrix, and
`slots` tells the place of each feature in there, or -1.

Loops over factors run in groups of `LANES`, so that each is a few instructions on vectors: the number of factors is a
multiple of that, those added are 0 and stay 0. Indices are unsigned: Numba then leaves out what makes -1 mean the last.

Source: Rendle, "Factorization Machines", ICDM 2010, section III-B (the sum over pairs in linear time).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagesmith_algorithms.compiled import compiled

__all__ = ["LANES", "N_SUMS", "add", "gradients", "move", "scores", "steps"]

LANES = 8
N_SUMS = 8
"""What `gradients` sums up: rows, squared errors, absolute errors, cross entropy, and true positives, false
positives, false negatives, true negatives."""

_CSR = "i8[::1], i4[::1], f4[::1]"
_MODEL = "f4[::1], f4[:,::1]"
_BUFFERS = "i4[::1], i4[::1], f4[::1], f4[:,::1]"
_FAST = {"contract", "reassoc", "nsz", "arcp"}  # not "nnan": what diverges must be seen


@compiled(f"f4({_CSR}, u8, {_MODEL}, f4, f4[::1])", fastmath=_FAST, error_model="numpy")
def _score(
    indptr: Any, indices: Any, values: Any, row: Any, weights: Any, factors: Any, bias: Any, inner: Any
) -> Any:
    """Return the score of one *row*, and in *inner* (n_factors,) the sums of its features' factors."""
    n_factors = np.uint64(factors.shape[1])
    inner[:] = 0
    linear, squares = np.float32(0), np.float32(0)
    for at in range(np.uint64(indptr[row]), np.uint64(indptr[row + np.uint64(1)])):
        x, feature = values[at], np.uint64(indices[at])
        linear += x * weights[feature]
        for group in range(np.uint64(0), n_factors, np.uint64(LANES)):
            for lane in range(LANES):
                j = group + np.uint64(lane)
                part = x * factors[feature, j]
                inner[j] += part
                squares += part * part
    pairs = -squares
    for group in range(np.uint64(0), n_factors, np.uint64(LANES)):
        for lane in range(LANES):
            j = group + np.uint64(lane)
            pairs += inner[j] * inner[j]
    return bias + linear + np.float32(0.5) * pairs


@compiled(f"void({_CSR}, {_MODEL}, f8, f4[::1])", fastmath=_FAST, error_model="numpy")
def scores(indptr: Any, indices: Any, values: Any, weights: Any, factors: Any, bias: float, out: Any) -> None:
    """Write the score of each row to *out*, float32 (n_samples,)."""
    inner = np.empty(factors.shape[1], np.float32)
    for row in range(np.uint64(len(out))):
        out[row] = _score(indptr, indices, values, row, weights, factors, np.float32(bias), inner)


@compiled(
    f"i8({_CSR}, f4[::1], i8[::1], {_MODEL}, f8, b1, {_BUFFERS}, f8[::1])",
    fastmath=_FAST, error_model="numpy",
)  # fmt: skip
def gradients(
    indptr: Any, indices: Any, values: Any, labels: Any, rows: Any, weights: Any, factors: Any,
    bias: float, binary: bool, slots: Any, touched: Any, weight_slopes: Any, factor_slopes: Any, sums: Any,
) -> int:  # fmt: skip
    """Add up the gradients of the loss of some rows.

    Args:
        indptr: of all rows, with *indices* and *values*.
        indices: see *indptr*.
        values: see *indptr*.
        labels: float32 (n_samples,), of all rows.
        rows: int64, the rows to take.
        weights: float32 (n_features,).
        factors: float32 (n_features, n_factors).
        bias: see above.
        binary: logistic loss of labels 0 and 1, instead of half the squared error.
        slots: int32 (n_features,), -1 everywhere; tells the place of the touched features afterwards.
        touched: int32, room for the touched features.
        weight_slopes: float32 (as many,), room for the gradients of their weights.
        factor_slopes: float32 (as many, n_factors), room for those of their factors.
        sums: float64 (N_SUMS + 1,); what the rows come to is added, at last the gradient of the bias.

    Returns:
        the number of features that were touched.
    """
    n_factors = np.uint64(factors.shape[1])
    inner = np.empty(factors.shape[1], np.float32)
    n_touched = 0
    for number in rows:
        row = np.uint64(number)
        score = float(_score(indptr, indices, values, row, weights, factors, np.float32(bias), inner))
        label = labels[row]
        sums[0] += 1
        if binary:
            power = math.exp(-abs(score))
            sums[3] += math.log1p(power) + max(score, 0.0) - score * label
            if score >= 0:
                sums[4 if label > 0.5 else 5] += 1
            else:
                sums[6 if label > 0.5 else 7] += 1
            error = (1.0 / (1.0 + power) if score >= 0 else power / (1.0 + power)) - label
        else:
            error = score - label
            sums[1] += error * error
            sums[2] += abs(error)
        sums[N_SUMS] += error
        for at in range(np.uint64(indptr[row]), np.uint64(indptr[row + np.uint64(1)])):
            x, feature = values[at], np.uint64(indices[at])
            slot = slots[feature]
            if slot < 0:
                slot = np.int32(n_touched)
                slots[feature] = slot
                touched[n_touched] = indices[at]
                weight_slopes[n_touched] = 0
                factor_slopes[n_touched, :] = 0
                n_touched += 1
            place, slope = np.uint64(slot), np.float32(error) * x
            weight_slopes[place] += slope
            for group in range(np.uint64(0), n_factors, np.uint64(LANES)):
                for lane in range(LANES):
                    j = group + np.uint64(lane)
                    factor_slopes[place, j] += slope * (inner[j] - x * factors[feature, j])
    return n_touched


@compiled(
    f"void({_BUFFERS}, i8, f8, i8, {_MODEL}, {_MODEL}, {_MODEL}, f8[::1], f8[::1])",
    fastmath=_FAST, error_model="numpy",
)  # fmt: skip
def move(
    slots: Any, touched: Any, weight_slopes: Any, factor_slopes: Any, n_touched: int, bias_slope: float, n_rows: int,
    weights: Any, factors: Any, weight_first: Any, factor_first: Any, weight_second: Any, factor_second: Any,
    bias: Any, settings: Any,
) -> None:  # fmt: skip
    """Make one step of Adam for the touched features, and forget which they were.

    Args:
        slots: see `gradients`.
        touched: see `gradients`.
        weight_slopes: see `gradients`.
        factor_slopes: see `gradients`.
        n_touched: see `gradients`.
        bias_slope: gradient of the bias.
        n_rows: rows that the gradients are of.
        weights: see `gradients`.
        factors: see `gradients`.
        weight_first: first moments of the weights.
        factor_first: first moments of the factors.
        weight_second: second moments of the weights.
        factor_second: second moments of the factors.
        bias: float64 (4,): the bias, its moments, and the number of steps made.
        settings: float64 (11,): learning rates of bias, weights and factors, their weight decays, beta_1, beta_2,
            epsilon, the largest gradient (0 for no limit), and what gradients are multiplied with (0 for one by
            the number of rows).

    Source: Kingma and Ba, "Adam", ICLR 2015, algorithm 1. Moments of features that do not occur stay as they are.
    """
    beta_1, beta_2, epsilon, limit, scale = settings[6:11]
    if scale == 0:
        scale = 1.0 / n_rows
    if limit == 0:
        limit = np.inf
    bias[3] += 1
    correction = math.sqrt(1.0 - beta_2 ** bias[3]) / (1.0 - beta_1 ** bias[3])
    slope = min(max(bias_slope * scale + settings[3] * bias[0], -limit), limit)
    bias[1] = beta_1 * bias[1] + (1 - beta_1) * slope
    bias[2] = beta_2 * bias[2] + (1 - beta_2) * slope * slope
    bias[0] -= settings[0] * correction * bias[1] / (math.sqrt(bias[2]) + epsilon)
    one, rest_1 = np.float32(beta_1), np.float32(1 - beta_1)
    two, rest_2 = np.float32(beta_2), np.float32(1 - beta_2)
    tiny, most, by = np.float32(epsilon), np.float32(limit), np.float32(scale)
    weight_rate, weight_decay = np.float32(settings[1] * correction), np.float32(settings[4])
    factor_rate, factor_decay = np.float32(settings[2] * correction), np.float32(settings[5])
    n_factors = np.uint64(factors.shape[1])
    for place in range(np.uint64(n_touched)):
        feature = np.uint64(touched[place])
        slots[feature] = -1
        g = min(max(weight_slopes[place] * by + weight_decay * weights[feature], -most), most)
        m = one * weight_first[feature] + rest_1 * g
        v = two * weight_second[feature] + rest_2 * g * g
        weight_first[feature], weight_second[feature] = m, v
        weights[feature] -= weight_rate * m / (np.sqrt(v) + tiny)
        for group in range(np.uint64(0), n_factors, np.uint64(LANES)):
            for lane in range(LANES):
                j = group + np.uint64(lane)
                g = min(max(factor_slopes[place, j] * by + factor_decay * factors[feature, j], -most), most)
                m = one * factor_first[feature, j] + rest_1 * g
                v = two * factor_second[feature, j] + rest_2 * g * g
                factor_first[feature, j] = m
                factor_second[feature, j] = v
                factors[feature, j] -= factor_rate * m / (np.sqrt(v) + tiny)


@compiled(
    f"void({_CSR}, f4[::1], i8[::1], i8, b1, {_BUFFERS}, {_MODEL}, {_MODEL}, {_MODEL}, f8[::1], f8[::1], f8[::1])",
    fastmath=_FAST, error_model="numpy",
)  # fmt: skip
def steps(
    indptr: Any, indices: Any, values: Any, labels: Any, rows: Any, size: int, binary: bool,
    slots: Any, touched: Any, weight_slopes: Any, factor_slopes: Any,
    weights: Any, factors: Any, weight_first: Any, factor_first: Any, weight_second: Any, factor_second: Any,
    bias: Any, settings: Any, sums: Any,
) -> None:  # fmt: skip
    """Make a step for each *size* of *rows*; see `gradients` and `move`."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        sums[N_SUMS] = 0
        n_touched = gradients(
            indptr, indices, values, labels, some, weights, factors, bias[0], binary,
            slots, touched, weight_slopes, factor_slopes, sums,
        )  # fmt: skip
        move(
            slots, touched, weight_slopes, factor_slopes, n_touched, sums[N_SUMS], len(some),
            weights, factors, weight_first, factor_first, weight_second, factor_second, bias, settings,
        )  # fmt: skip


@compiled(f"i8(i4[::1], f4[::1], f4[:,::1], i8, {_BUFFERS})", fastmath=_FAST, error_model="numpy")
def add(
    features: Any, more_weights: Any, more_factors: Any, n_touched: int,
    slots: Any, touched: Any, weight_slopes: Any, factor_slopes: Any,
) -> int:  # fmt: skip
    """Add the gradients of *features*, of other rows, to those of `gradients`; return how many are touched now."""
    for place in range(len(features)):
        feature = np.uint64(features[place])
        slot = slots[feature]
        if slot < 0:
            slot = np.int32(n_touched)
            slots[feature] = slot
            touched[slot] = features[place]
            weight_slopes[slot] = 0
            factor_slopes[slot, :] = 0
            n_touched += 1
        weight_slopes[slot] += more_weights[place]
        factor_slopes[slot, :] += more_factors[place]
    return n_touched
