"""Data of every kind on its way up: what lies in S3 afterwards, read back by what will read it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import sparse

from sagesmith.sdk import DataMismatch
from sagesmith.sdk._catalog import ALGORITHMS
from sagesmith.sdk._channels import Staged, stage
from sagesmith.sdk._upload import ObjectWriter
from sagesmith_algorithms.formats import recordio
from tests.sdk.fake import FakeSession

ROWS = pd.DataFrame({"a": [1.5, 2.0, np.nan], "y": [0, 1, 1], "b": [1, 2, 3]})


def staged(session: FakeSession, data: Any, algorithm: str | None = "xgboost", **more: Any) -> Staged:
    more.setdefault("target", None)
    return stage(
        session, "train", data, "s3://bucket/job/input/train",
        algorithm=ALGORITHMS[algorithm] if algorithm else None, **more,
    )  # fmt: skip


def only(session: FakeSession) -> bytes:
    (body,) = session.objects.values()
    return body


def test_a_frame_becomes_parquet_with_the_label_first() -> None:
    session = FakeSession()
    found = staged(session, ROWS, target="y")
    table = parquet.read_table(io.BytesIO(only(session)))
    assert table.schema.names == ["label", "a", "b"]
    assert table.column("label").to_pylist() == [0, 1, 1]
    assert table.column("b").to_pylist() == [1, 2, 3]
    assert np.isnan(table.column("a").to_numpy()[2])
    assert (found.names, found.target, found.n_rows, found.n_features) == (("a", "b"), "y", 3, 2)
    assert found.content_type == "application/x-parquet"


def test_without_pyarrow_it_becomes_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagesmith.sdk._channels._has_pyarrow", lambda: False)
    session = FakeSession()
    assert staged(session, ROWS, target="y").content_type == "text/csv"
    assert only(session) == b"0.0,1.5,1.0\n1.0,2.0,2.0\n1.0,,3.0\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param((ROWS[["a", "b"]].iloc[:2], ROWS["y"].iloc[:2]), id="pair of frames"),
        pytest.param((ROWS[["a", "b"]].iloc[:2].to_numpy(), [0, 1]), id="pair of arrays"),
        pytest.param(pa.Table.from_pandas(ROWS.iloc[:2]), id="arrow"),
    ],
)
def test_every_kind_of_table_becomes_the_same_records(data: Any) -> None:
    session = FakeSession()
    target = None if isinstance(data, tuple) else "y"
    staged(session, data, "linear-learner", target=target)
    batch = recordio.decode(only(session))
    assert np.array_equal(batch.features, np.array([[1.5, 1], [2, 2]], np.float32))
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]


def test_sparse_rows_stay_sparse() -> None:
    matrix = sparse.random(40, 3000, 0.01, "csr", random_state=1)
    labels = np.arange(40.0)
    session = FakeSession()
    staged(session, (matrix, labels), "factorization-machines")
    batch = recordio.decode(only(session))
    assert batch.is_sparse
    assert abs(batch.features - matrix.astype(np.float32)).max() == 0
    assert batch.labels is not None
    assert np.array_equal(batch.labels, labels)
    other = FakeSession()
    assert staged(other, (matrix, labels)).content_type == "text/libsvm"
    first = only(other).split(b"\n")[1].split(b" ")
    assert first[0] == b"1.0"
    assert [int(cell.split(b":")[0]) for cell in first[1:]] == matrix[1].indices.tolist()


def test_files_are_read_in_pieces_and_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(70_000, 3)), columns=["a", "b", "y"])
    frame.to_csv(path, index=False)
    session = FakeSession()
    found = staged(session, path, "linear-learner", target="y")
    batch = recordio.decode(only(session))
    assert found.n_rows == len(batch.features) == 70_000
    assert np.array_equal(batch.features, frame[["a", "b"]].to_numpy(np.float32))
    for name, write in (("rows.parquet", frame.to_parquet), ("rows.feather", frame.to_feather)):
        write(tmp_path / name)
        other = FakeSession()
        staged(other, str(tmp_path / name), "linear-learner", target="y")
        assert only(other) == only(session)


def test_csv_that_fits_goes_up_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("1,2,3\n4,5,6\n")
    session = FakeSession()
    found = staged(session, path, "kmeans")
    assert only(session) == path.read_bytes()
    assert (found.content_type, found.n_features) == ("text/csv;label_size=0", 3)


def test_scripts_get_what_they_read_easily(tmp_path: Path) -> None:
    session = FakeSession()
    staged(session, ROWS, None)
    assert pd.read_csv(io.BytesIO(session.objects["s3://bucket/job/input/train/train.csv"])).equals(ROWS)
    staged(session, np.arange(6).reshape(3, 2), None)
    assert np.load(io.BytesIO(session.objects["s3://bucket/job/input/train/train.npy"])).shape == (3, 2)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.bin").write_bytes(b"x")
    staged(session, tmp_path, None)
    assert session.objects["s3://bucket/job/input/train/deep/x.bin"] == b"x"


def test_texts_become_lines() -> None:
    session = FakeSession()
    frame = pd.DataFrame({"text": ["good day", "bad\nnight"], "mood": ["fine", "not so"]})
    staged(session, frame, "blazingtext", target="mood")
    assert only(session) == b"__label__fine good day\n__label__not_so bad night\n"


def test_large_uploads_go_in_parts_and_failed_ones_leave_nothing() -> None:
    session = FakeSession()
    body = np.random.default_rng(0).bytes(40 << 20)
    with ObjectWriter(session, "s3://bucket/large") as file:
        for start in range(0, len(body), 1 << 20):
            file.write(body[start : start + (1 << 20)])
    assert session.objects["s3://bucket/large"] == body

    def broken() -> None:
        with ObjectWriter(session, "s3://bucket/broken") as file:
            file.write(body)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert session.aborted == ["s3://bucket/broken"]
    assert "s3://bucket/broken" not in session.objects


@pytest.mark.parametrize(
    ("data", "more", "algorithm", "words"),
    [
        (ROWS, {"target": "Y"}, "xgboost", r"no column 'Y'. Did you mean 'y'\?"),
        (ROWS, {}, "xgboost", "needs a label"),
        (ROWS.assign(c="x"), {"target": "y"}, "xgboost", "'c' "),
        (ROWS.assign(y=["no", "yes", "no"]), {"target": "y"}, "xgboost", "such as 'no'.*factorize"),
        (ROWS, {"target": "y"}, "linear-learner", "Row 2 .* column 'a'.*fillna"),
        ((np.ones((3, 2)), [1, 2]), {}, "xgboost", "3 rows and 2 labels"),
        (np.ones(3), {}, "kmeans", "reshape"),
        ("nowhere.csv", {}, "kmeans", "no file or folder nowhere.csv"),
        (ROWS.iloc[:0], {"target": "y"}, "xgboost", "no rows"),
        (ROWS, {"target": "y", "features": ["a", "z"]}, "xgboost", "no column 'z'"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(
    data: Any, more: dict[str, Any], algorithm: str, words: str
) -> None:
    session = FakeSession()
    with pytest.raises(DataMismatch, match=words):
        staged(session, data, algorithm, **more)
    assert not session.objects


def test_labels_go_where_an_algorithm_wants_them() -> None:
    """Random cut forest learns without labels and measures itself with them."""
    rows = (np.ones((3, 2)), [0, 0, 1])
    train, test = FakeSession(), FakeSession()
    staged(train, rows, "randomcutforest")
    staged(test, rows, "randomcutforest", needs_label=True)
    assert recordio.decode(only(train)).labels is None
    labels = recordio.decode(only(test)).labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]
    with pytest.raises(DataMismatch, match="needs a label"):
        staged(FakeSession(), np.ones((3, 2)), "randomcutforest", needs_label=True)
