"""A small job for every built-in algorithm, for the tests that are the same for all of them.

A new algorithm adds its `Sample` here and passes `test_every_algorithm`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import csv, recordio

__all__ = ["SAMPLES", "Fault", "Sample", "numeric"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Fault:
    """Data that a job must refuse, and what the reason must say beside the name of the file."""

    content_type: str
    content: bytes
    says: str
    hyperparameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """A job of some seconds, and requests to its model.

    Attributes:
        hyperparameters: as a training job gets them.
        train: the same data in every content type of the train channel.
        requests: the same rows in every form of a request.
        columns: what each row of an answer holds.
        faults: data to refuse, by a word for it.
        judged: further channels that get the training data, so that metrics are logged.
    """

    hyperparameters: Mapping[str, str]
    train: Mapping[str, bytes]
    requests: Mapping[str, bytes]
    columns: tuple[str, ...]
    faults: Mapping[str, Fault]
    judged: tuple[str, ...] = ("test",)


def numeric(
    hyperparameters: Mapping[str, Any],
    rows: Array,
    labels: Array | None,
    columns: tuple[str, ...],
    *,
    train_types: tuple[str, ...] = (types.RECORDIO, types.CSV),
    request_types: tuple[str, ...] = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO),
    bad_label: float | None = None,
    finite: bool = True,
    judged: tuple[str, ...] = ("test",),
) -> Sample:
    """Return the sample of an algorithm that learns from rows of numbers.

    Args:
        hyperparameters: as a training job gets them.
        rows: float (n_samples, n_features), none of them 0.
        labels: (n_samples,), or None if it needs none.
        columns: what each row of an answer holds.
        train_types: content types of the train channel.
        request_types: content types of requests.
        bad_label: a label that must be refused.
        finite: whether missing values must be refused.
        judged: channels that metrics come from.
    """
    given = {name: str(value) for name, value in hyperparameters.items()}
    rows = rows.astype(np.float32)
    known = None if labels is None else labels.astype(np.float32)
    size = "label_size=0" if known is None else "label_size=1"
    train = {
        (f"{kind};{size}" if kind in (types.CSV, types.PARQUET) else kind): _encoded(kind, rows, known)
        for kind in train_types
    }
    instances = [{"features": row} for row in rows[:3].astype(float).tolist()]
    request_forms = {
        types.CSV: csv.encode(rows[:3]),
        types.JSON: json.dumps({"instances": instances}).encode(),
        types.JSON_LINES: "\n".join(map(json.dumps, instances)).encode(),
        types.RECORDIO: recordio.encode(rows[:3]),
        types.LIBSVM: b"\n".join(_encoded(types.LIBSVM, rows[:3], np.zeros(3)).splitlines()),
        types.PARQUET: _encoded(types.PARQUET, rows[:3], None),
    }
    a_csv = f"{types.CSV};{size}"
    wide = np.hstack([rows, rows[:, :1]])
    csv_faults = {} if a_csv not in train else {
        "a short line": Fault(a_csv, _changed(train, a_csv, 4, lambda line: line.rpartition(b",")[0]), "line 5"),
        "a text": Fault(a_csv, _changed(train, a_csv, 2, lambda line: line + b"x"), "line 3, column"),
        "a header": Fault(a_csv, b"a,b,c\n" + train[a_csv], "line 1 seems to be a header"),
        "CSV that is RecordIO": Fault(a_csv, train[types.RECORDIO], "line 1"),
        "an empty cell": Fault(
            a_csv, _changed(train, a_csv, 6, lambda line: line.rpartition(b",")[0] + b","),
            "record 7: .*missing or infinite",
        ),
    }  # fmt: skip
    faults = {
        **csv_faults,
        "RecordIO that is CSV": Fault(types.RECORDIO, request_forms[types.CSV], "record 1 .*content type"),
        "RecordIO cut short": Fault(types.RECORDIO, train[types.RECORDIO][:-9], f"record {len(rows)} is cut short"),
        "a longer record": Fault(
            types.RECORDIO,
            train[types.RECORDIO] + _encoded(types.RECORDIO, wide[:1], None if known is None else known[:1]),
            f"record {len(rows) + 1}",
        ),
    }  # fmt: skip
    if "feature_dim" in given:
        kind, content = next(iter(train.items()))
        faults["another feature_dim"] = Fault(
            kind, content, "record 1: .*feature_dim is 77", {"feature_dim": "77"}
        )
    if finite:
        for word, value in (("NaN", np.nan), ("infinity", np.inf)):
            broken = rows.copy()
            broken[7, 1] = value
            faults[word] = Fault(
                types.RECORDIO, _encoded(types.RECORDIO, broken, known), "record 8: .*missing or infinite"
            )
    elif csv_faults:
        del faults["an empty cell"]
    if known is not None:
        faults["no label"] = Fault(types.RECORDIO, recordio.encode(rows), "label")
        missing = known.copy()
        missing[4] = np.nan
        faults["a missing label"] = Fault(
            types.RECORDIO, _encoded(types.RECORDIO, rows, missing), "record 5: .*label"
        )
    if bad_label is not None and known is not None:
        wrong = known.copy()
        wrong[9] = bad_label
        faults["a label out of range"] = Fault(
            types.RECORDIO, _encoded(types.RECORDIO, rows, wrong), "record 10: the label .* is not allowed"
        )
    return Sample(
        given, train, {kind: request_forms[kind] for kind in request_types}, columns, faults, judged
    )


def _changed(train: Mapping[str, bytes], kind: str, line: int, change: Any) -> bytes:
    lines = train[kind].splitlines()
    lines[line] = change(lines[line])
    return b"\n".join(lines)


def _encoded(kind: str, rows: Array, labels: Array | None) -> bytes:
    if kind == types.RECORDIO:
        return recordio.encode(rows, labels)
    table = rows if labels is None else np.column_stack([labels, rows]).astype(np.float32)
    if kind == types.CSV:
        return csv.encode(table)
    if kind == types.LIBSVM:
        return "\n".join(
            " ".join([f"{line[0]:g}", *(f"{i}:{v}" for i, v in enumerate(line[1:].tolist()))])
            for line in table
        ).encode()
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table({f"c{i}": table[:, i] for i in range(table.shape[1])}), buffer)
    return buffer.getvalue()


_RNG: Final = np.random.default_rng(0)
_CLASSES: Final = _RNG.integers(0, 3, 300)
_ROWS: Final = _RNG.normal(size=(300, 5)) + 4 + 6.0 * _CLASSES[:, None] * np.array([1, 0, 1, 0, 1])
_BINARY: Final = (_CLASSES > 0).astype(float)

_COUNTS: Final = _RNG.poisson(3 * _CLASSES[:, None] * np.array([1, 0, 1, 0, 1]) + 2, (300, 5)) + 1.0


def _pairs() -> Sample:
    """Return the sample of IP Insights: users and addresses of two networks of theirs."""
    rows = [(f"user-{i % 7}", f"10.{i % 7}.{i % 2}.{i % 200}") for i in range(300)]
    lines = "".join(f"{user},{address}\n" for user, address in rows).encode()
    instances = [{"features": row} for row in rows[:3]]
    return Sample(
        {"num_entity_vectors": "20", "vector_dim": "4", "mini_batch_size": "50"},
        {types.CSV: lines},
        {
            types.CSV: b"\n".join(lines.splitlines()[:3]),
            types.JSON: json.dumps({"instances": instances}).encode(),
            types.JSON_LINES: "\n".join(map(json.dumps, instances)).encode(),
        },
        ("dot_product",),
        {
            "a short line": Fault(types.CSV, lines + b"ann\n", "line 301 has 1 columns"),
            "no address": Fault(
                types.CSV, lines + b"ann,10.0.0.256\n", "line 301: '10.0.0.256' is not an IPv4"
            ),
            "a header": Fault(types.CSV, b"user,ip\n" + lines, "line 1: 'ip' is not an IPv4 address"),
        },
        ("validation",),
    )


def _sentences() -> Sample:
    """Return the sample of BlazingText: lines about animals or numbers."""
    kinds = {"animals": ("cat", "dog", "cow", "hen"), "numbers": ("one", "two", "ten", "six")}
    rows = [
        (f"{' '.join(_RNG.choice(words, 5))} and so on", kind)
        for _ in range(60)
        for kind, words in kinds.items()
    ]
    lines = "".join(f"__label__{kind} {text}\n" for text, kind in rows).encode()
    documents = [{"source": text, "label": kind} for text, kind in rows]
    records = [part for text, kind in rows for part in (text.encode(), json.dumps(kind).encode())]
    texts = [text for text, _ in rows[:3]]
    return Sample(
        {"mode": "supervised", "vector_dim": "8", "buckets": "100", "learning_rate": "0.5"},
        {
            "text/plain": lines,
            types.RECORDIO: b"".join(map(recordio.frame, records)),
            types.JSON_LINES: "\n".join(map(json.dumps, documents)).encode(),
        },
        {
            types.JSON: json.dumps({"instances": texts}).encode(),
            types.JSON_LINES: "\n".join(json.dumps({"source": text}) for text in texts).encode(),
        },
        ("prob", "label"),
        {
            "no UTF-8": Fault("text/plain", lines + b"__label__x \xff\n", "line 121 is not UTF-8"),
            "no source": Fault(types.JSON_LINES, b'{"source": "a"}\n{"text": "b"}\n', "line 2 must be"),
            "a record cut short": Fault(
                types.RECORDIO, b"".join(map(recordio.frame, records))[:-5], "record 240 is cut"
            ),
        },
        ("validation",),
    )


SAMPLES: Final[Mapping[str, Sample]] = {
    "blazingtext": _sentences(),
    "factorization-machines": numeric(
        {"feature_dim": 5, "num_factors": 3, "predictor_type": "binary_classifier"},
        _ROWS, _BINARY, ("score", "predicted_label"),
        train_types=(types.RECORDIO,), request_types=(types.JSON, types.JSON_LINES, types.RECORDIO), bad_label=2,
    ),
    "ipinsights": _pairs(),
    "kmeans": numeric(
        {"k": 3, "feature_dim": 5}, _ROWS, None, ("closest_cluster", "distance_to_cluster")
    ),
    "knn": numeric(
        {"k": 3, "feature_dim": 5, "predictor_type": "classifier", "sample_size": 300},
        _ROWS, _CLASSES, ("predicted_label",),
    ),
    "lda": numeric(
        {"num_topics": 2, "feature_dim": 5, "mini_batch_size": 300}, _COUNTS, None, ("topic_mixture",)
    ),
    "linear-learner": numeric(
        {"predictor_type": "binary_classifier", "feature_dim": 5, "num_models": 2},
        _ROWS, _BINARY, ("score", "predicted_label"), bad_label=2, judged=("validation", "test"),
    ),
    "pca": numeric({"num_components": 2, "feature_dim": 5, "mini_batch_size": 100}, _ROWS, None, ("projection",)),
    "randomcutforest": replace(  # labels of the train channel are not needed, those of the test channel are
        numeric({"feature_dim": 5, "num_trees": 50}, _ROWS, _BINARY, ("score",)),
        faults=numeric({"feature_dim": 5, "num_trees": 50}, _ROWS, None, ("score",)).faults,
    ),
    "xgboost": numeric(
        {"num_round": 5, "objective": "binary:logistic"},
        _ROWS, _BINARY, ("score",),
        train_types=(types.LIBSVM, types.CSV, types.PARQUET, types.RECORDIO),
        request_types=(types.CSV, types.LIBSVM, types.PARQUET, types.RECORDIO),
        bad_label=2, finite=False, judged=("validation",),
    ),
}  # fmt: skip
"""By name. Every algorithm of the registry must be here."""
