from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sagesmith_algorithms import DataError
from sagesmith_algorithms.formats import recordio
from sagesmith_algorithms.formats.batch import concatenated
from sagesmith_algorithms.formats.protobuf import Tensor, encode_record
from sagesmith_algorithms.formats.readers import file_batches

# One row (1, 2) with label 3, byte by byte from the protobuf encoding and the SDK's `_write_recordio`.
WORKED = bytes.fromhex(
    "0a23d7ce 2c000000"  # magic, length 44
    "0a16 0a06 76616c756573 120c 120a 0a08 0000803f 00000040"  # features { values { float32_tensor { 1, 2 } } }
    "1212 0a06 76616c756573 1208 1206 0a04 00004040"  # label { values { float32_tensor { 3 } } }
)

floats = st.floats(width=32, allow_nan=False)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=floats
)


def test_a_row_worked_by_hand() -> None:
    features, labels = np.array([[1, 2]], np.float32), np.array([3], np.float32)
    assert recordio.encode(features, labels) == WORKED
    batch = recordio.decode(WORKED)
    np.testing.assert_array_equal(batch.features, features)
    np.testing.assert_array_equal(batch.labels, labels)


@given(matrices)
def test_dense_rows_come_back(features: Any) -> None:
    batch = recordio.decode(recordio.encode(features, features[:, 0]))
    np.testing.assert_array_equal(batch.features, features)
    np.testing.assert_array_equal(batch.labels, features[:, 0])


@given(matrices)
def test_sparse_rows_come_back(features: Any) -> None:
    from scipy.sparse import csr_matrix

    sparse = csr_matrix(features)
    batch = recordio.decode(recordio.encode(sparse))
    np.testing.assert_array_equal(batch.dense(), sparse.toarray())
    assert batch.labels is None


@given(
    hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(-(2**24), 2**24)
    )
)
def test_int32_rows_come_back(features: Any) -> None:
    np.testing.assert_array_equal(recordio.decode(recordio.encode(features)).features, features)


def test_float64_rows_come_back() -> None:
    features = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(recordio.decode(recordio.encode(features)).features, features)


def test_records_built_differently_in_one_file() -> None:
    rows = [recordio.encode(np.full((2, 3), i, np.float32)) for i in range(3)]
    other = recordio.frame(encode_record({"x": Tensor(np.array([7, 7, 7], np.float32))}, {}))
    batch = recordio.decode(rows[0] + other + rows[1] + rows[2])
    np.testing.assert_array_equal(batch.features[:, 0], [0, 0, 7, 1, 1, 2, 2])


tensors = st.builds(
    lambda values, kind, keyed: Tensor(
        np.array(values, kind),
        np.sort(np.array([abs(int(v)) * 300 % 70000 + i * 70000 for i, v in enumerate(values)], np.uint64))
        if keyed
        else np.empty(0, np.uint64),
        (10**6,) if keyed else (),
    ),
    st.lists(st.integers(-100, 100), min_size=3, max_size=3),
    st.sampled_from((np.float32, np.float64, np.int32)),
    st.booleans(),
)
sparse_tensors = st.builds(
    lambda keys, kind: Tensor(np.arange(len(keys)).astype(kind), np.array(sorted(keys), np.uint64), (10**6,)),
    st.sets(st.integers(0, 10**6 - 1), max_size=5),
    st.sampled_from((np.float32, np.float64)),
)


@given(st.lists(st.one_of(tensors, sparse_tensors), min_size=1, max_size=30), st.booleans())
def test_records_parsed_side_by_side_are_those_parsed_alone(rows: list[Tensor], labelled: bool) -> None:
    label = {"values": Tensor(np.array([7], np.float32))} if labelled else {}
    records = [recordio.frame(encode_record({"values": row}, label)) for row in rows]
    alone = [recordio.decode(record) for record in records]
    together = recordio.decode(b"".join(records))
    width = together.n_features
    expected = [np.pad(one.dense(), ((0, 0), (0, width - one.n_features))) for one in alone]
    np.testing.assert_array_equal(together.dense(), np.concatenate(expected))
    assert (together.labels is None) is (not labelled)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_sparse_row_worked_by_hand(kind: Any) -> None:
    from scipy.sparse import csr_matrix

    features = csr_matrix((np.array([1.5, 2.5, 4.5], kind), [3, 300, 0], [0, 2, 2, 3]), shape=(3, 301))
    data = recordio.encode(features, np.array([1, 0, 1], np.float32))
    record = encode_record(
        {"values": Tensor(np.array([1.5, 2.5], kind), np.array([3, 300], np.uint64), (301,))},
        {"values": Tensor(np.ones(1, np.float32))},
    )
    assert data.startswith(recordio.frame(record))
    batch = recordio.decode(data)
    np.testing.assert_array_equal(batch.dense(), features.toarray())
    np.testing.assert_array_equal(batch.labels, [1, 0, 1])


def test_a_record_of_another_length_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.pbr"
    path.write_bytes(recordio.encode(np.ones((5, 3))) + recordio.encode(np.ones((1, 2))))
    with pytest.raises(DataError, match=r"data\.pbr, record 6: .*2 features, but those before have 3"):
        concatenated(list(file_batches(path, "application/x-recordio-protobuf")))


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((1000, 7), np.float32)
    path = tmp_path / "data.pbr"
    path.write_bytes(recordio.encode(features, features[:, 1]))
    batches = list(recordio.read(path, 1001))
    assert len(batches) > 10
    np.testing.assert_array_equal(np.concatenate([b.features for b in batches]), features)


def test_records_that_are_alike_until_one_is_not() -> None:
    rows = [np.full((n, 3), n, np.float32) for n in (5, 1, 4)]
    odd = recordio.frame(encode_record({"values": Tensor(rows[1][0].astype(np.float64))}, {}))
    data = recordio.encode(rows[0]) + odd + recordio.encode(rows[2])
    np.testing.assert_array_equal(recordio.decode(data).features, np.concatenate(rows))


def test_a_payload_split_at_the_magic() -> None:
    magic = struct.pack("<I", 0xCED7230A)
    features = np.frombuffer(struct.pack("<f", 1.5) + magic + struct.pack("<f", 2.5), np.float32)[None]
    payload = encode_record({"values": Tensor(features[0])}, {})
    a, b = payload.split(magic)

    def part(flag: int, piece: bytes) -> bytes:
        return magic + struct.pack("<I", flag << 29 | len(piece)) + piece + bytes(-len(piece) % 4)

    np.testing.assert_array_equal(recordio.decode(part(1, a) + part(3, b)).features, features)


@given(st.integers(1, len(WORKED) - 1))
def test_what_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(DataError):
        recordio.decode(WORKED[:length])


@given(st.integers(0, len(WORKED) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, byte: int) -> None:
    changed = WORKED[:place] + bytes([byte]) + WORKED[place + 1 :]
    with contextlib.suppress(DataError):
        recordio.decode(changed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no record"),
        (b"1,2,3\n4,5,6\n", "Is the content type right"),
        (struct.pack("<II", 0xCED7230A, (1 << 29) - 1) + b"x" * 16, "cut short"),
        (recordio.frame(b"\x0b"), "record 1 is not valid: wire type 3"),
        (recordio.frame(encode_record({}, {})), "must have one feature tensor"),
        (
            recordio.frame(
                encode_record({"values": Tensor(np.ones(1, np.float32), np.array([2**40], np.uint64))}, {})
            ),
            "beyond the largest column",
        ),
    ],
)
def test_refusals(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recordio.decode(data)
