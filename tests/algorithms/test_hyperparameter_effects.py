"""Every hyperparameter changes what comes out, is refused, or the job's log says that it has no effect.

For each that an algorithm declares, the table holds a value that is not its default, and what shows that it was obeyed:
another model (the default), other log lines, or the very same model where it only concerns time and memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pytest

from sagesmith_algorithms import CustomerError, algorithm, names
from sagesmith_algorithms.formats import content_type as types
from tests.algorithms import serving
from tests.algorithms.samples import SAMPLES, Sample, numeric
from tests.algorithms.test_every_algorithm import train

Shows = Literal["model", "log", "nothing", "refused", "elsewhere"]


@dataclass(frozen=True)
class Change:
    """Another *value*.

    Attributes:
        value: as a training job gets it.
        where: what else is set, without which it would mean nothing.
        shows: where the change is seen. ``nothing``: it concerns time and memory alone. ``elsewhere``: a test of its own.
        content_type: of the data, if it is not the sample's first.
        skips: the first columns that are no features then.
    """

    value: str
    where: Mapping[str, str] = field(default_factory=dict)
    shows: Shows = "model"
    content_type: str = ""
    skips: int = 0


def _fm(part: str) -> dict[str, Change]:
    steps = {"mini_batch_size": "50"}
    return {
        f"{part}_init_method": Change("uniform", {f"{part}_init_scale": "0.5"}),
        f"{part}_init_scale": Change("0.7", {f"{part}_init_method": "uniform", f"{part}_init_scale": "0.5"}),
        f"{part}_init_sigma": Change("0.5"),
        f"{part}_init_value": Change("0.7", {f"{part}_init_method": "constant", f"{part}_init_value": "0.5"}),
        f"{part}_lr": Change("0.05", steps),
        f"{part}_wd": Change("0.5", steps),
    }


BATCHES: Final = {"optimizer": "sgd", "mini_batch_size": "50"}
REGRESSOR: Final = {"predictor_type": "regressor"}
CLASSES: Final = {"predictor_type": "multiclass_classifier", "num_classes": "3"}
DART: Final = {"booster": "dart", "rate_drop": "0.5"}
LINEAR: Final = {"booster": "gblinear", "updater": "coord_descent"}
RANKING: Final = {"objective": "rank:pairwise"}
AFT: Final = {"objective": "survival:aft"}
WORDS: Final = {"mode": "skipgram", "sampling_threshold": "1", "learning_rate": "0.05"}

CHANGES: Final[Mapping[str, Mapping[str, Change]]] = {
    "blazingtext": {
        "mode": Change("skipgram"),
        "batch_size": Change("2", {**WORDS, "mode": "batch_skipgram"}),
        "buckets": Change("7"),
        "early_stopping": Change("true", {"epochs": "30", "min_epochs": "1", "patience": "1"}, "log"),
        "epochs": Change("3"),
        "evaluation": Change("false", WORDS, "log"),
        "learning_rate": Change("0.1"),
        "max_char": Change("3", {**WORDS, "subwords": "true"}),
        "min_char": Change("2", {**WORDS, "subwords": "true"}),
        "min_count": Change("100"),
        "min_epochs": Change(
            "9", {"early_stopping": "true", "epochs": "30", "patience": "1", "min_epochs": "1"}, "log"
        ),
        "negative_samples": Change("1", WORDS),
        "patience": Change(
            "9", {"early_stopping": "true", "epochs": "30", "min_epochs": "1", "patience": "1"}, "log"
        ),
        "sampling_threshold": Change("0.01", WORDS),
        "subwords": Change("true", WORDS),
        "vector_dim": Change("5"),
        "window_size": Change("1", WORDS),
        "word_ngrams": Change("1"),
    },
    "factorization-machines": {
        "feature_dim": Change("6", shows="refused"),
        "num_factors": Change("4"),
        "predictor_type": Change("regressor"),
        "epochs": Change("2"),
        "mini_batch_size": Change("50"),
        "clip_gradient": Change("0.0001", {"eps": "1"}),
        "eps": Change("1"),
        "rescale_grad": Change("0.0001", {"eps": "1"}),
        **_fm("bias"),
        **_fm("linear"),
        **_fm("factors"),
    },
    "ipinsights": {
        "num_entity_vectors": Change("10"),
        "vector_dim": Change("5"),
        "batch_metrics_publish_interval": Change("2", shows="log"),
        "epochs": Change("2"),
        "learning_rate": Change("0.1"),
        "mini_batch_size": Change("100"),
        "num_ip_encoder_layers": Change("2"),
        "random_negative_sampling_rate": Change("2"),
        "shuffled_negative_sampling_rate": Change("2"),
        "weight_decay": Change("0.1"),
    },
    "kmeans": {
        "k": Change("4"),
        "feature_dim": Change("6", shows="refused"),
        "mini_batch_size": Change("50", {"k": "9", "local_lloyd_max_iter": "1", "local_lloyd_num_trials": "1"}),
        "epochs": Change("2", {"mini_batch_size": "50"}),
        "init_method": Change("kmeans++"),
        "extra_center_factor": Change("5"),
        "half_life_time_size": Change("50", {"mini_batch_size": "50"}),
        "local_lloyd_init_method": Change("random", {"k": "9"}),
        "local_lloyd_max_iter": Change("1", {"k": "9"}),
        "local_lloyd_num_trials": Change("1", {"k": "9"}),
        "local_lloyd_tol": Change("0.5", {"k": "9"}),
        "eval_metrics": Change("ssd", shows="log"),
        "force_dense": Change("false", shows="nothing"),
    },
    "knn": {
        "feature_dim": Change("6", shows="refused"),
        "k": Change("4"),
        "predictor_type": Change("regressor", {"k": "40"}),
        "sample_size": Change("20"),
        "dimension_reduction_type": Change("fjlt", {"dimension_reduction_type": "sign", "dimension_reduction_target": "2"}),
        "dimension_reduction_target": Change("3", {"dimension_reduction_type": "sign", "dimension_reduction_target": "2"}),
        "index_type": Change("faiss.IVFPQ", {"faiss_index_pq_m": "1"}),
        "index_metric": Change("COSINE"),
        "faiss_index_ivf_nlists": Change("2", {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": "1"}),
        "faiss_index_pq_m": Change("4", {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": "1"}),
        "mini_batch_size": Change("100", shows="nothing"),
    },
    "lda": {
        "num_topics": Change("3"),
        "feature_dim": Change("6", shows="refused"),
        "mini_batch_size": Change("100", shows="nothing"),
        "alpha0": Change("5"),
        "max_restarts": Change("1", {"num_topics": "4", "max_iterations": "2"}),
        "max_iterations": Change("1", {"num_topics": "4"}),
        "tol": Change("10", {"num_topics": "4"}),
    },
    "linear-learner": {
        "predictor_type": Change("regressor"),
        "feature_dim": Change("6", shows="refused"),
        "num_classes": Change("4", CLASSES),
        "mini_batch_size": Change("70", BATCHES),
        "epochs": Change("1"),
        "use_bias": Change("false"),
        "binary_classifier_model_selection_criteria": Change("precision_at_target_recall", shows="log"),
        "target_recall": Change(
            "0.2", {"binary_classifier_model_selection_criteria": "precision_at_target_recall"}, "log"
        ),
        "target_precision": Change(
            "0.7", {"binary_classifier_model_selection_criteria": "recall_at_target_precision"}, "log"
        ),
        "positive_example_weight_mult": Change("5"),
        "balance_multiclass_weights": Change("true", CLASSES),
        "f_beta": Change("2", shows="log"),
        "accuracy_top_k": Change("2", CLASSES, "log"),
        "num_models": Change("8", BATCHES),
        "num_calibration_samples": Change("5", shows="log"),
        "init_method": Change("normal", {**BATCHES, "epochs": "1"}),
        "init_scale": Change("0.5", {**BATCHES, "epochs": "1"}),
        "init_sigma": Change("0.5", {**BATCHES, "epochs": "1", "init_method": "normal"}),
        "init_bias": Change("0.5", {**BATCHES, "epochs": "1"}),
        "optimizer": Change("sgd"),
        "loss": Change("hinge_loss"),
        "wd": Change("0.5"),
        "l1": Change("0.1"),
        "momentum": Change("0.5", BATCHES),
        "learning_rate": Change("0.003", BATCHES),
        "beta_1": Change("0.5", {**BATCHES, "optimizer": "adam"}),
        "beta_2": Change("0.5", {**BATCHES, "optimizer": "adam"}),
        "bias_lr_mult": Change("5", BATCHES),
        "bias_wd_mult": Change("5", {"wd": "0.5"}),
        "use_lr_scheduler": Change("false", BATCHES),
        "lr_scheduler_step": Change("2", BATCHES),
        "lr_scheduler_factor": Change("0.5", BATCHES),
        "lr_scheduler_minimum_lr": Change("0.09", BATCHES),
        "normalize_data": Change("false", {"wd": "0.5"}),
        "normalize_label": Change("false", {**REGRESSOR, "wd": "0.5", "loss": "huber_loss"}),
        "unbias_data": Change("false", {"wd": "0.5"}),
        "unbias_label": Change("false", {**REGRESSOR, "wd": "0.5", "bias_wd_mult": "1"}),
        "num_point_for_scaler": Change("10", {"wd": "0.5"}),
        "margin": Change("3", {"loss": "hinge_loss"}),
        "quantile": Change("0.9", {**REGRESSOR, "loss": "quantile_loss"}),
        "loss_insensitivity": Change("0.9", {**REGRESSOR, "loss": "eps_insensitive_squared_loss"}),
        "huber_delta": Change("0.1", {**REGRESSOR, "loss": "huber_loss"}),
        "early_stopping_patience": Change("9", {"early_stopping_tolerance": "0.9", "early_stopping_patience": "1"}),
        "early_stopping_tolerance": Change("0.9", {"early_stopping_patience": "1"}),
    },
    "pca": {
        "num_components": Change("3"),
        "feature_dim": Change("6", shows="refused"),
        "mini_batch_size": Change("50", shows="nothing"),
        "algorithm_mode": Change("randomized", shows="elsewhere"),
        "extra_components": Change("1", {"algorithm_mode": "randomized"}, "elsewhere"),
        "subtract_mean": Change("false"),
    },
    "randomcutforest": {
        "feature_dim": Change("6", shows="refused"),
        "num_trees": Change("60"),
        "num_samples_per_tree": Change("100"),
        "eval_metrics": Change("accuracy", shows="log"),
        "mini_batch_size": Change("100", shows="nothing"),
    },
    "xgboost": {
        "num_round": Change("6"),
        "num_class": Change("4", {"objective": "multi:softprob", "num_class": "3"}),
        "objective": Change("reg:squarederror"),
        "eval_metric": Change("auc", shows="log"),
        "early_stopping_rounds": Change("1", {"num_round": "60", "eval_metric": "error"}, "log"),
        "booster": Change("gblinear"),
        "verbosity": Change("0", shows="nothing"),
        "nthread": Change("1", shows="nothing"),
        "eta": Change("0.1"),
        "gamma": Change("9"),
        "max_depth": Change("1"),
        "min_child_weight": Change("20"),
        "max_delta_step": Change("0.1"),
        "subsample": Change("0.3"),
        "colsample_bytree": Change("0.3"),
        "colsample_bylevel": Change("0.3"),
        "colsample_bynode": Change("0.3"),
        "lambda": Change("20"),
        "alpha": Change("5"),
        "tree_method": Change("exact", {"tree_method": "approx", "max_bin": "4"}),
        "device": Change("cuda", shows="refused"),
        "sketch_eps": Change("0.1", shows="nothing"),
        "scale_pos_weight": Change("9"),
        "updater": Change("grow_colmaker,prune", {"max_bin": "4", "verbosity": "0"}),
        "dsplit": Change("col", shows="nothing"),
        "refresh_leaf": Change("0", shows="nothing"),
        "process_type": Change("update", shows="refused"),
        "grow_policy": Change("lossguide", {"max_leaves": "5"}),
        "max_leaves": Change("2"),
        "max_bin": Change("3"),
        "predictor": Change("cpu_predictor", shows="nothing"),
        "sample_type": Change("weighted", {**DART, "num_round": "20"}),
        "normalize_type": Change("forest", DART),
        "rate_drop": Change("0.9", DART),
        "one_drop": Change("1", {"booster": "dart", "rate_drop": "0.01"}),
        "skip_drop": Change("0.9", DART),
        "lambda_bias": Change("0.5", shows="nothing"),
        "feature_selector": Change("shuffle", LINEAR),
        "top_k": Change("1", {**LINEAR, "feature_selector": "greedy"}),
        "tweedie_variance_power": Change("1.9", {"objective": "reg:tweedie"}),
        "huber_slope": Change("0.1", {"objective": "reg:pseudohubererror"}),
        "quantile_alpha": Change("0.1", {"objective": "reg:quantileerror", "quantile_alpha": "0.5"}),
        "base_score": Change("0.9"),
        "seed": Change("7", {"subsample": "0.3"}),
        "num_parallel_tree": Change("3", {"subsample": "0.5"}),
        "monotone_constraints": Change("(-1,0,-1,0,-1)"),
        "interaction_constraints": Change("[[0], [1], [2], [3], [4]]"),
        "aft_loss_distribution": Change("extreme", AFT),
        "aft_loss_distribution_scale": Change("3", AFT),
        "sampling_method": Change("gradient_based", {"subsample": "0.3"}),
        "max_cat_to_onehot": Change("2", shows="nothing"),
        "max_cached_hist_node": Change("1", shows="nothing"),
        "lambdarank_pair_method": Change("mean", RANKING),
        "lambdarank_num_pair_per_sample": Change("2", RANKING),
        "deterministic_histogram": Change("false", shows="nothing"),
        "single_precision_histogram": Change("true", shows="nothing"),
        "prob_buffer_row": Change("0.5", shows="nothing"),
        "csv_weights": Change("1", content_type=f"{types.CSV};label_size=1", skips=1),
        "save_model_on_termination": Change("true", shows="elsewhere"),
        "_kfold": Change("3"),
        "_num_cv_round": Change("2", {"_kfold": "3"}),
        "use_dask_gpu_training": Change("true", shows="nothing"),
        "silent": Change("1", shows="nothing"),
    },
}  # fmt: skip

_RNG: Final = np.random.default_rng(3)
_ROWS: Final = np.abs(_RNG.normal(size=(300, 5))).round(3) + 0.1
_CLASSES: Final = np.digitize(_ROWS[:, 0] + 2 * _ROWS[:, 2] * _ROWS[:, 1] + _RNG.normal(size=300), [1.5, 3.0])


def _hard(name: str) -> Sample:
    """Return the sample of *name* with rows that are not told apart easily, so that little things show."""
    sample = SAMPLES[name]
    if name in ("blazingtext", "ipinsights"):
        return sample
    classes = _CLASSES if name == "knn" else _CLASSES > 0
    labels = None if name in ("kmeans", "pca", "lda") else classes.astype(float)
    kinds = tuple(text.partition(";")[0] for text in sample.train)
    rows = np.ceil(9 * _ROWS) if name == "lda" else _ROWS
    return replace(
        numeric(
            sample.hyperparameters,
            rows,
            labels,
            sample.columns,
            train_types=kinds,
            request_types=tuple(sample.requests),
        ),
        judged=sample.judged,
    )


HARD: Final = {name: _hard(name) for name in names()}
CASES: Final = [(name, one) for name, changes in CHANGES.items() for one in changes]
_TIMES: Final = re.compile(
    r"^\[[^]]*\] |#metrics .*|#throughput_metric.*|Final configuration.*|.*[Tt]otal training time.*|.*[Ww]ords/sec.*"
)
_ATOL: Final = {"lda": 0.02}  # documents that are read again are explained from the beginning
_NUMBERS: Final = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, ...], tuple[str, str]]:
    """What is known of jobs that several cases begin from."""
    return {}


def outcome(
    folder: Path, name: str, given: Mapping[str, str], change: Change, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """Return what the model of a job answers to the sample's rows, at length, and what the job logs."""
    sample = HARD[name]
    content_type = change.content_type or next(iter(sample.train))
    channels = {one: (content_type, {"a": sample.train[content_type]}) for one in ("train", *sample.judged)}
    if name == "blazingtext" and given.get("mode", "supervised") != "supervised":
        del channels["validation"]
    capsys.readouterr()
    model_dir = train(folder, name, channels, given)
    log = "\n".join(_TIMES.sub("", line) for line in capsys.readouterr().out.splitlines())
    predictor = algorithm(name).load_predictor(model_dir, {})
    request_type, body = next(iter(sample.requests.items()))
    if name not in ("blazingtext", "ipinsights"):
        body = serving.bodies(_ROWS[:60, change.skips if "csv_weights" in given else 0 :])[request_type]
    if name == "blazingtext" and given.get("mode", "supervised") != "supervised":
        body = json.dumps({"instances": ["cat", "dog", "kitten"]}).encode()
    accept = "application/json; verbose=true" if name in ("knn", "ipinsights") else serving.JSON
    response = serving.ask(predictor, request_type, accept, body)
    assert response.status == 200, response.body
    return response.body.decode(), log


@pytest.mark.parametrize("name", names())
def test_each_that_is_declared_is_here(name: str) -> None:
    assert list(CHANGES[name]) == list(algorithm(name).hyperparameters)


@pytest.mark.parametrize(("name", "one"), CASES, ids=[f"{name}-{one}" for name, one in CASES])
def test_it_is_obeyed_refused_or_said_to_have_no_effect(
    name: str,
    one: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    outcomes: dict[tuple[str, ...], tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sagesmith_algorithms.kmeans._KEPT_ROWS", 1)  # of few rows the best centers are found
    change, declared = CHANGES[name][one], algorithm(name).hyperparameters
    given = {**SAMPLES[name].hyperparameters, **change.where, one: change.value}
    if change.shows == "refused":
        with pytest.raises(CustomerError, match=rf"{one}|{change.value}|GPU"):
            outcome(tmp_path, name, {**change.where, one: change.value}, change, capsys)
        return
    if declared[one].idle:
        assert any(s.startswith(f"{one}=") for s in declared.without_effect(given))
    else:
        assert not any(s.startswith(f"{one}=") for s in declared.without_effect(given))
    for other in declared[one].needs:
        assert given.get(other, declared[other].default) in (*declared[one].needs[other], "true")
    if change.shows == "elsewhere":
        return
    base = {**change.where}
    key = (name, change.content_type, *sorted(map("=".join, base.items())))
    if key not in outcomes:
        outcomes[key] = outcome(tmp_path / "before", name, base, change, capsys)
    before = outcomes[key]
    after = outcome(tmp_path / "after", name, {**base, one: change.value}, change, capsys)
    if change.shows == "nothing":
        numbers = [[float(n) for n in _NUMBERS.findall(text)] for text in (after[0], before[0])]
        assert np.allclose(numbers[0], numbers[1], rtol=1e-4, atol=_ATOL.get(name, 0.0))
    else:
        place = ("model", "log").index(change.shows)
        assert after[place] != before[place]


def test_a_log_says_what_has_no_effect(tmp_path: Path) -> None:
    found = algorithm("linear-learner").hyperparameters.without_effect(
        {"predictor_type": "regressor", "quantile": "0.3", "margin": "1.0", "_kvstore": "dist_async"}
    )
    assert found == [
        "quantile=0.3 has no effect with loss=auto: it is for quantile_loss",
        "_kvstore has no effect: it sets what AWS's own containers are made of",
    ]
