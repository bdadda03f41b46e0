"""Training: scale, move all candidates, stop early, choose the best and its threshold.

It is the same for an estimator's matrix and for a job on several hosts: rows come from `Rows`, and what hosts must
agree on goes through `Team`. Newton steps give the same model on any number of hosts; mini-batch steps are made on
each host's rows, and the weights averaged after each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.linear_learner import metrics
from sagesmith_algorithms.linear_learner.candidates import Candidate, candidates, optimizer_of
from sagesmith_algorithms.linear_learner.data import Rows, Scaling
from sagesmith_algorithms.linear_learner.hyperparameters import BINARY, MULTICLASS, REGRESSOR
from sagesmith_algorithms.linear_learner.losses import loss_of
from sagesmith_algorithms.linear_learner.minibatch import MiniBatches, Settings
from sagesmith_algorithms.linear_learner.newton import Newton, Objective
from sagesmith_algorithms.linear_learner.team import Team
from sagesmith_algorithms.threads import blas_on_one_thread, side_by_side

__all__ = ["Fitted", "Progress", "Trainer"]

Array = npt.NDArray[Any]
Progress = Callable[[int, dict[str, float]], None]
_DEFAULT_LOSS: Final = {BINARY: "logistic", MULTICLASS: "softmax_loss", REGRESSOR: "squared_loss"}
_CALIBRATION_SCORES: Final = 1 << 17  # of each model: more hardly moves a threshold
_COMPARED_SCORES: Final = 1 << 15  # of each of several models; then the best one gets its threshold from more
_WORTH_WARMING: Final = (
    3  # rows for each of the sample's, from which on passes cost more than steps on the sample
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training found: a score is ``weights @ row + bias``, in the units of the data as they came."""

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    threshold: float
    loss: str
    settings: dict[str, Any]
    n_epochs: int


class Trainer:
    """Trains with the hyperparameters *values*."""

    def __init__(
        self,
        values: Mapping[str, Any],
        team: Team,
        *,
        rng: np.random.Generator,
        n_threads: int = 1,
        progress: Progress = lambda epoch, losses: None,
    ) -> None:
        self._values = values
        self._team = team
        self._rng = rng
        self._n_threads = n_threads
        self._progress = progress
        self._type = values["predictor_type"]
        self._n_outputs = values["num_classes"] if self._type == MULTICLASS else 1
        self.loss_name = _DEFAULT_LOSS[self._type] if values["loss"] == "auto" else values["loss"]
        self.objective = loss_of(self.loss_name, values).objective

    def fit(self, train: Rows, validation: Rows | None) -> Fitted:
        """Train on *train*; *validation*, if there is any, decides when to stop and which model is best.

        Raises:
            DataError: a row cannot be learned from, or there is none.
        """
        with blas_on_one_thread():
            return self._fit(train, validation)

    def _fit(self, train: Rows, validation: Rows | None) -> Fitted:
        values, team = self._values, self._team
        self._read(train, validation)
        width = train.n_features
        n_rows, counts = team.summed(np.array(train.n_rows), train.class_counts)
        if not n_rows:
            raise DataError("there is no row in the channel 'train'; check its S3Uri")
        optimizer = optimizer_of(values, width, self._n_outputs)
        scaling = self._scaling(train)
        train.scale(scaling, shuffled=optimizer != "newton")
        if validation is not None:
            validation.scale(scaling, shuffled=False)
        balanced = float(counts[0] / counts[1]) if self._type == BINARY and counts[1] and counts[0] else 1.0
        chosen = candidates(
            values, optimizer, width, self._n_outputs, int(n_rows), balanced, validated=validation is not None
        )
        objective = self._objective(chosen, counts)
        weights = self._first_weights(width, len(chosen))
        if optimizer == "newton":
            weights, n_epochs = self._newton(objective, weights, train, validation)
        else:
            weights, n_epochs = self._mini_batches(optimizer, chosen, objective, weights, train, validation)
        best, threshold = self._best(weights, validation or train)
        settings = self._settings_of(chosen[best], optimizer)
        self._chosen = (weights[:, best].astype(np.float32), scaling)
        return self._fitted(weights[:, best], scaling, threshold, settings, n_epochs)

    def judged(
        self, rows: Rows, answers: Callable[[Array], Mapping[str, Array]]
    ) -> tuple[int, dict[str, float]]:
        """Return the number of *rows* of all hosts, and the metrics of the chosen model for them, in AWS's words.

        *answers* makes the columns of a response of linear scores, which have the units of the data as they came.
        """
        weights, scaling = self._chosen
        if not rows.n_rows:
            rows.n_features, rows.is_sparse = len(weights) - 1, rows.is_sparse
            rows.read()
            rows.widen(len(weights) - 1, sparse=rows.is_sparse)
            rows.scale(scaling, shuffled=False)
        values, loss, total = self._values, loss_of(self.loss_name, self._values), 0.0
        deviation, mean = scaling.label_deviation, scaling.label_mean
        ranking = metrics.Ranking()

        def sums(z: Array, labels: Array) -> dict[str, Array]:
            scores = z.astype(np.float64) * deviation + mean
            columns = answers(scores[:, 0] if scores.shape[1] == 1 else scores)
            return metrics.sums_of(columns, labels * deviation + mean, values)

        found = sums(np.empty((0, weights.shape[1]), np.float32), np.empty(0, np.float32))
        with blas_on_one_thread():
            for block, labels in rows.blocks():
                z = np.asarray(block @ weights)
                total += float(loss.parts(z, labels)[0].sum(dtype=np.float64))
                for name, value in sums(z, labels).items():
                    found[name] = found[name] + value
                if self._type == BINARY:
                    ranking.add(z[:, 0], labels)
        (summed, *parts) = self._team.summed(np.array(total), *found.values())
        found = dict(zip(found, parts, strict=True))
        area = ranking.area(self._team) if self._type == BINARY else None
        n_rows = int(found["rows"])
        if not n_rows:
            return 0, {}
        mean_loss = float(summed) * loss.reported / n_rows
        return n_rows, {f"{self.objective} <loss>": mean_loss, **metrics.metrics_of(found, area, values)}

    # ---- before ----

    def _read(self, train: Rows, validation: Rows | None) -> None:
        train.read()
        sizes = self._team.joined(np.array([[train.n_features, train.is_sparse, train.n_rows]]))[0]
        width = int(sizes[:, 0].max())
        if not sizes[:, 1].any() and len({int(w) for w, _, n in sizes if n}) > 1:
            raise DataError(
                f"the hosts' rows differ in length: {', '.join(str(int(w)) for w, _, _ in sizes)}"
            )
        train.widen(width, sparse=bool(sizes[:, 1].any()))
        if validation is not None:
            validation.n_features = width
            validation.is_sparse = train.is_sparse
            validation.read()
            validation.widen(width, sparse=train.is_sparse)
            if not self._team.summed(np.array(validation.n_rows))[0]:
                raise DataError("there is no row in the channel 'validation'; check its S3Uri")

    def _scaling(self, train: Rows) -> Scaling:
        values, width = self._values, train.n_features
        features, labels = train.sample(-(-values["num_point_for_scaler"] // self._team.size))
        n, sums, label_sum = self._team.summed(
            np.array(float(len(labels))),
            _column_sums(features, width),
            np.array(labels.sum(dtype=np.float64)),
        )
        mean, label_mean = sums / n, float(label_sum / n)
        squares, label_squares = self._team.summed(
            _column_squares(features, mean), np.array(((labels - label_mean) ** 2).sum(dtype=np.float64))
        )
        deviation = np.sqrt(squares / n)
        deviation[deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
        bias = values["use_bias"]
        unbias = bias if values["unbias_data"] == "auto" else values["unbias_data"]
        if not unbias or train.is_sparse:  # shifting would fill what sparse rows leave out
            mean = np.zeros(width)
        if values["normalize_data"] is False:
            deviation = np.ones(width)
        label_deviation = float(np.sqrt(label_squares / n)) or 1.0
        regression = self._type == REGRESSOR
        if not regression or values["normalize_label"] is False:
            label_deviation = 1.0
        unbias_label = bias if values["unbias_label"] == "auto" else values["unbias_label"]
        return Scaling(mean, deviation, label_mean if regression and unbias_label else 0.0, label_deviation)

    def _objective(self, chosen: list[Candidate], counts: Array) -> Objective:
        values = self._values
        wd = np.array([one.wd for one in chosen])
        mult = 0.0 if values["bias_wd_mult"] == "auto" else values["bias_wd_mult"]
        positive = np.array([one.positive_weight for one in chosen])
        class_weight = None
        if self._type == MULTICLASS and values["balance_multiclass_weights"]:
            seen = counts > 0
            class_weight = np.where(seen, counts.sum() / np.maximum(counts, 1) / seen.sum(), 0.0)
        return Objective(
            loss_of(self.loss_name, values), self._n_outputs, np.array([one.l1 for one in chosen]), wd, wd * mult,
            positive if (positive != 1.0).any() else None, class_weight,
        )  # fmt: skip

    def _first_weights(self, width: int, n_models: int) -> Array:
        values = self._values
        shape = (width + 1, 1, self._n_outputs)  # the same for all models
        if values["init_method"] == "uniform":
            weights = self._rng.uniform(-values["init_scale"], values["init_scale"], shape)
        else:
            weights = self._rng.normal(0.0, values["init_sigma"], shape)
        weights = np.repeat(weights, n_models, axis=1)
        weights[-1] = values["init_bias"] if values["use_bias"] else 0.0
        return self._team.agreed(weights)[0]

    # ---- passes ----

    def _newton(
        self, objective: Objective, weights: Array, train: Rows, validation: Rows | None
    ) -> tuple[Array, int]:
        team, stop = self._team, self._stopping()
        size = Newton.sample_size(train.n_features, objective.n_models * objective.n_outputs)
        rows, labels = train.scaled_sample(-(-size // team.size))
        if team.size > 1:
            dense = rows if isinstance(rows, np.ndarray) else rows.toarray()
            rows, labels = team.joined(dense, labels)
        n, squares = team.summed(np.array(train.n_rows), train.square_sums())
        newton = Newton(objective, weights, (rows, labels), squares / n, use_bias=self._values["use_bias"])
        if _WORTH_WARMING * len(labels) < n:
            newton.warm_up()
        epoch = 0
        for epoch in range(self._values["epochs"]):
            loss, slopes = newton.evaluated(lambda some, weights: self._pass_over(some, train, weights))
            n, loss, slopes = team.summed(np.array(train.n_rows), loss, slopes)
            means = np.where(newton.done, np.inf, loss / n)
            newton.take(loss / n, slopes / n)
            *state, moved = team.agreed(
                newton.weights, newton.best, newton.best_value, newton.done, np.array(newton.moved)
            )
            newton.weights, newton.best, newton.best_value, newton.done = state
            newton.moved = bool(moved)
            watched = self._watched(objective, newton.best, validation)
            self._report(epoch, objective, means, watched)
            # A pass in which all steps were too long says nothing about how much there is to gain.
            if newton.done.all() or (
                newton.moved and stop(newton.best_value if watched is None else watched)
            ):
                break
        return newton.best, epoch + 1

    def _mini_batches(
        self,
        optimizer: str,
        chosen: list[Candidate],
        objective: Objective,
        weights: Array,
        train: Rows,
        validation: Rows | None,
    ) -> tuple[Array, int]:
        values, team, stop = self._values, self._team, self._stopping()
        size = min(values["mini_batch_size"], max(train.n_rows, 1))
        if values["optimizer"] == "auto":  # enough steps for small data
            size = min(size, max(32, train.n_rows // 100))
        per_pass = -(-train.n_rows // size)
        settings = self._mini_batch_settings(optimizer, chosen, per_pass)
        state = MiniBatches(objective, settings, weights, use_bias=values["use_bias"])
        epoch = 0
        for epoch in range(values["epochs"]):
            losses = state.epoch(train.mixed_blocks(size))
            share = np.array(float(train.n_rows))
            n, losses, *arrays = team.summed(share, losses, *(a * np.float64(share) for a in state.state()))
            if team.size > 1:
                state.set_state([a / n for a in arrays])
            watched = self._watched(objective, state.weights, validation)
            self._report(epoch, objective, losses / n, watched)
            if not np.isfinite(losses).any():
                raise DataError("the loss is infinite for all models; choose a smaller learning_rate")
            if stop(losses / n if watched is None else watched):
                break
        return state.weights.astype(np.float64), epoch + 1

    def _mini_batch_settings(self, optimizer: str, chosen: list[Candidate], per_pass: int) -> Settings:
        values = self._values

        def given(name: str, default: float) -> float:
            return default if values[name] == "auto" else float(values[name])

        epochs = values["epochs"]
        step = int(given("lr_scheduler_step", max(per_pass, 1)))
        times = max(1.0, epochs * per_pass / step)
        return Settings(
            optimizer=optimizer,
            learning_rate=np.array([one.learning_rate for one in chosen]),
            momentum=given("momentum", 0.9 if optimizer == "sgd" else 0.0),
            beta_1=given("beta_1", 0.9),
            beta_2=given("beta_2", 0.999 if optimizer == "adam" else 0.9),
            bias_lr_mult=given("bias_lr_mult", 1.0),
            decay_step=step if values["use_lr_scheduler"] else 0,
            decay_factor=given("lr_scheduler_factor", 0.01 ** (1.0 / times)),
            least_rate=given("lr_scheduler_minimum_lr", 1e-5),
        )

    def _pass_over(self, objective: Objective, rows: Rows, weights: Array) -> tuple[Array, Array]:
        blocks = rows.blocks()
        loss, slopes = np.zeros(objective.n_models), np.zeros(weights.shape)
        while group := list(islice(blocks, self._n_at_once(rows))):
            parts = [group[i :: self._n_threads] for i in range(self._n_threads)]
            for one_loss, one_slopes in side_by_side(
                lambda part: objective.pass_over(iter(part), weights), parts
            ):
                loss += one_loss
                slopes += one_slopes
        return loss, slopes

    def _n_at_once(self, rows: Rows) -> int:
        """Return how many blocks are worked on together: of rows that are read again for each pass few, to keep few."""
        return (16 if rows.are_kept else 4) * self._n_threads

    def _watched(self, objective: Objective, weights: Array, validation: Rows | None) -> Array | None:
        """Return the mean losses of the validation rows."""
        if validation is None:
            return None
        flat = weights.reshape(len(weights), -1).astype(np.float32)
        loss = np.zeros(objective.n_models)

        def losses(block: tuple[Any, Array]) -> Array:
            found: Array = objective.parts(np.asarray(block[0] @ flat), block[1])[0].sum(
                axis=0, dtype=np.float64
            )
            return found

        blocks = validation.blocks()
        while group := list(islice(blocks, self._n_at_once(validation))):
            loss += sum(side_by_side(losses, group))
        n, loss = self._team.summed(np.array(validation.n_rows), loss)
        return np.asarray(loss / n)

    def _stopping(self) -> Callable[[Array], bool]:
        patience = self._values["early_stopping_patience"]
        tolerance = self._values["early_stopping_tolerance"]
        best, since = np.inf, 0

        def stop(losses: Array) -> bool:
            nonlocal best, since
            present = float(np.nanmin(losses))
            if present < best - tolerance * abs(best) or not np.isfinite(best):
                best, since = present, 0
            else:
                since += 1
            return bool(since >= patience)

        return stop

    def _report(self, epoch: int, objective: Objective, losses: Array, watched: Array | None) -> None:
        name, factor = objective.loss.objective, objective.loss.reported
        found = {f"train {name} <loss>": factor * float(np.nanmin(losses))}
        if watched is not None:
            found[f"validation {name} <loss>"] = factor * float(np.nanmin(watched))
        self._progress(epoch, found)

    # ---- afterwards ----

    def _best(self, weights: Array, rows: Rows) -> tuple[int, float]:
        """Return the best model and its threshold, judged by *rows*."""
        n_models = weights.shape[1]
        criterion = self._values["binary_classifier_model_selection_criteria"]
        by_threshold = self._type == BINARY and criterion not in ("loss_function", "cross_entropy_loss")
        usual = 0.5 if self.loss_name == "logistic" else 0.0
        if n_models == 1 and not by_threshold:
            return 0, usual
        flat = weights.reshape(len(weights), -1).astype(np.float32)
        given = self._values["num_calibration_samples"]
        n_samples = _CALIBRATION_SCORES if given == "auto" else int(given)
        n_samples = -(-n_samples // self._team.size)
        loss = loss_of(self.loss_name, self._values)
        n_samples = min(n_samples, rows.n_rows)
        sums, scores, known, n_seen = np.zeros(n_models), [], [], 0
        for block, labels in rows.blocks():
            z = np.asarray(block @ flat)
            sums += loss.parts(z, labels)[0].sum(axis=0, dtype=np.float64)
            if by_threshold:  # rows from all over, as they may be sorted
                before = np.arange(n_seen, n_seen + len(labels) + 1) * n_samples // rows.n_rows
                taken = np.flatnonzero(np.diff(before))
                scores.append(z[taken])
                known.append(labels[taken])
                n_seen += len(labels)
        (sums,) = self._team.summed(sums)
        if not by_threshold:
            return int(np.nanargmin(sums)), usual
        none = np.empty((0, n_models), np.float32)
        z, labels = self._team.joined(np.concatenate([none, *scores]), np.concatenate([none[:, 0], *known]))
        some = slice(None, None, max(1, len(z) // _COMPARED_SCORES) if n_models > 1 else 1)
        found = [metrics.best_threshold(z[some, i], labels[some], self._values) for i in range(n_models)]
        # Of models that are equally good by the criterion, the one of the least loss.
        best = max(range(n_models), key=lambda i: (round(found[i][1], 9), -sums[i]))
        threshold = metrics.best_threshold(z[:, best], labels, self._values)[0]
        return best, 1.0 / (1.0 + float(np.exp(-threshold))) if self.loss_name == "logistic" else threshold

    def _settings_of(self, one: Candidate, optimizer: str) -> dict[str, Any]:
        found: dict[str, Any] = {"optimizer": optimizer, "wd": one.wd, "l1": one.l1}
        if optimizer != "newton":
            found["learning_rate"] = one.learning_rate
        if self._type == BINARY:
            found["positive_example_weight_mult"] = one.positive_weight
        return found

    def _fitted(
        self, weights: Array, scaling: Scaling, threshold: float, settings: dict[str, Any], n_epochs: int
    ) -> Fitted:
        inner = weights[:-1].astype(np.float64) / scaling.deviation[:, None]
        bias = weights[-1] - scaling.mean @ inner
        return Fitted(
            weights=np.ascontiguousarray(inner.T) * scaling.label_deviation,
            bias=bias * scaling.label_deviation + scaling.label_mean,
            threshold=threshold,
            loss=self.loss_name,
            settings=settings,
            n_epochs=n_epochs,
        )


def _column_sums(features: Any, width: int) -> Array:
    if not features.shape[0]:
        return np.zeros(width)
    return np.asarray(features.sum(axis=0, dtype=np.float64)).reshape(-1)


def _column_squares(features: Any, mean: Array) -> Array:
    """Return the sums of squared differences from *mean*."""
    if not features.shape[0]:
        return np.zeros(len(mean))
    if isinstance(features, np.ndarray):
        total = np.zeros(len(mean))
        for start in range(0, len(features), 4096):
            difference = features[start : start + 4096] - mean
            total += np.einsum("ij,ij->j", difference, difference)
        return np.asarray(total)
    squares = np.asarray(features.multiply(features).sum(axis=0, dtype=np.float64)).reshape(-1)
    return np.asarray(np.maximum(squares - features.shape[0] * mean**2, 0.0))
