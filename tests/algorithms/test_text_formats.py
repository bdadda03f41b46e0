from __future__ import annotations

import contextlib
import gzip
import itertools
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sagesmith_algorithms import CustomerError, DataError, RequestError
from sagesmith_algorithms.formats import arrow, csv, files, json_lines, libsvm, parquet, plain, recordio
from sagesmith_algorithms.formats.batch import Batch, concatenated
from sagesmith_algorithms.formats.content_type import ContentType, accepted
from sagesmith_algorithms.formats.files import Lines, channel_files
from sagesmith_algorithms.formats.readers import channel_batches, rebatched
from sagesmith_toolkit.environment import Channel

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def a_file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_csv(tmp_path: Path, text: str, **options: Any) -> Batch:
    return concatenated(list(csv.read(a_file(tmp_path, text), **options)))


class TestCsv:
    @given(matrices)
    def test_what_is_written_is_read(self, rows: Any) -> None:
        np.testing.assert_array_equal(csv.decode(csv.encode(rows)), rows)

    def test_label_and_weight_stand_in_front(self, tmp_path: Path) -> None:
        batch = read_csv(tmp_path, "1,0.5,10,20\r\n2,0.25,30,\r\n", weighted=True)
        np.testing.assert_array_equal(batch.labels, [1, 2])
        np.testing.assert_array_equal(batch.weights, [0.5, 0.25])
        np.testing.assert_array_equal(batch.features, np.array([[10, 20], [30, np.nan]], np.float32))

    def test_many_blocks_are_one_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files.line_blocks, "__defaults__", (50,))
        batch = read_csv(tmp_path, "".join(f"{i},{i + 0.5}\n" for i in range(100)), n_threads=2)
        np.testing.assert_array_equal(batch.features[:, 0], np.arange(100) + 0.5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("label,a,b\n1,2,3\n", r"line 1 seems to be a header \(label, a, b"),
            ("1,2,3\n4,5\n", "line 2 has 2 columns, but the lines before have 3"),
            ("1,2,3\n\n4,5,6,7\n", "line 3 has 4 columns, but the lines before have 3"),
            ("1,2,3\n4,male,6\n", "line 2, column 2: 'male' is not a number"),
            ("1\n2\n", "leaves no feature"),
            ("1,2\n3,\x00\n", "line 2, column 2"),
        ],
    )
    def test_faults_name_file_line_and_column(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            read_csv(tmp_path, text)
        assert "data.csv" in str(caught.value)

    def test_one_row_of_a_request(self) -> None:
        np.testing.assert_array_equal(csv.decode(b"1,-2.5,1e3\n"), [[1, -2.5, 1000]])
        np.testing.assert_array_equal(csv.decode(b"1,,+.5"), np.array([[1, np.nan, 0.5]], np.float32))

    @given(st.binary(max_size=60))
    def test_any_bytes_are_read_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(DataError):
            assert csv.decode(body).ndim == 2


def plainly(text: str | bytes) -> Lines:
    text = text.encode() if isinstance(text, str) else text
    return Lines(text, text.count(b"\n"), 0)


class TestPlain:
    """Compiled code reads what programs write, and knows what it does not know."""

    @given(
        st.one_of(
            st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{0,25})?([eE][-+]?[0-9]{1,2})?", fullmatch=True),
            st.from_regex(r"-?\.[0-9]{1,20}", fullmatch=True),
            st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
            st.floats(-1e9, 1e9).map(repr),
            st.integers(-(2**53), 2**53).map(str),
        )
    )
    def test_a_number_is_the_nearest_float32(self, text: str) -> None:
        table = plain.table(plainly(f"{text},1\n"), 2)
        if table is not None:
            error = abs(Fraction(float(table[0, 0])) - Fraction(text))
            assert error <= Fraction(float(np.spacing(np.abs(table[0, 0])))) / 2 * (1 + Fraction(1, 10**8))

    @pytest.mark.parametrize(
        "text",
        ["0.1", "-1.66851", "123456789.123456789", "0.00012345678901234567", "1e-30", "6.02e+23", "5."],
    )
    def test_what_programs_write_is_known(self, text: str) -> None:
        table = plain.table(plainly(text), 1)
        assert table is not None
        np.testing.assert_array_equal(table, np.float32(float(text)).reshape(1, 1))

    @pytest.mark.parametrize(
        "text",
        [
            *("-", ".", "1e", "1e+", "--1", "1-", "0x1", "1_0", "nan", "inf", '"1"', "1;", "1\r2", "é"),
            *("1e39", "1e-39", "1e99", "1e-99999999999999999999", "1" * 19),
            "1.000000059604644775390625",  # just the middle between two numbers of float32
            *("1,2", "1\n2,3", "1:2", "1 2"),
        ],
    )
    def test_what_is_not_plain_is_left_to_others(self, text: str) -> None:
        assert plain.table(plainly(f"{text}\n"), 1) is None

    def test_lines(self) -> None:
        table = plain.table(plainly("\n1,, 3\t\r\n\r\n,-0, 6"), 3)
        np.testing.assert_array_equal(table, np.array([[1, np.nan, 3], [np.nan, 0, 6]], np.float32))
        assert plain.table(plainly("1,2,3\n4,5\n6\n"), 3) is None

    def test_pairs(self) -> None:
        batch = plain.sparse(plainly("+1:0.5 qid:7 0:1.5 3:-2 \r\n\n0:2\tqid:8  16777217:4"))
        assert batch is not None
        assert batch.features.shape == (2, 16777218)
        assert batch.features.indices.tolist() == [0, 3, 16777217]
        assert batch.features.indptr.tolist() == [0, 2, 3]
        for found, values in (
            (batch.features.data, [1.5, -2, 4]), (batch.labels, [1, 0]), (batch.weights, [0.5, 2]), (batch.groups, [7, 8]),
        ):  # fmt: skip
            np.testing.assert_array_equal(found, values)
        assert batch.groups is not None
        assert batch.groups.dtype == np.int64

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "1 2",
                "1 2:3:4",
                "1 2:",
                "1 :3",
                "1 2:3,",
                "1,2",
                " 2:",
                "1 2:3 qid:7",
                "1 1.5:2",
                "1 -2:2",
                "1 -1:2",
            ),
            *("1 2147483647:1", "1 qid:1.5", "1:2 3:4\n1 3:4", "1 qid:1 3:4\n1 3:4", "1 0:1  # a comment"),
        ],
    )
    def test_pairs_that_are_not_plain_are_left_to_others(self, text: str) -> None:
        assert plain.sparse(plainly(text)) is None

    @given(
        st.one_of(
            st.text("0123456789.,:-+e \t\r\nqid#", max_size=40),
            st.lists(
                st.from_regex(
                    r"[0-9]{1,2}(:[1-9])?( qid:[0-9]{1,2})?( -?[0-9]{1,3}:-?[0-9]{1,3}(\.[0-9]{1,9})?){0,3} ?",
                    fullmatch=True,
                )
            ).map("\n".join),
        )
    )
    def test_any_text_is_read_as_it_would_be_otherwise(self, text: str) -> None:
        batch = plain.sparse(plainly(text))
        if batch is not None and len(batch):
            other = libsvm.decode(text.encode())
            assert (batch.features != other.features).nnz == 0
            np.testing.assert_array_equal(batch.labels, other.labels)
            np.testing.assert_array_equal(batch.weights, other.weights)
            np.testing.assert_array_equal(batch.groups, other.groups)

    def test_both_ways_read_the_same_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files.line_blocks, "__defaults__", (5000,))
        rows = np.random.default_rng(1).standard_normal((1000, 4))
        rows[::7, 2] = np.nan
        table = a_file(
            tmp_path,
            "".join(",".join("" if v != v else repr(v) for v in row) + "\n" for row in rows.tolist()),
        )
        sparse = tmp_path / "sparse"
        sparse.write_text("".join(f"1 1:{a} 3:{b}\n" for a, b, *_ in rows.tolist()) + "# the end\n1 3:4\n")
        for read, path in ((csv.read, table), (libsvm.read, sparse)):
            ways = [
                concatenated(list(read(path, compiled=c, n_threads=n)))
                for c, n in ((False, 1), (True, 1), (True, 2))
            ]
            for way in ways[1:]:
                np.testing.assert_array_equal(way.dense(), ways[0].dense())
                np.testing.assert_array_equal(way.labels, ways[0].labels)

    @pytest.mark.parametrize("read", [csv.read, libsvm.read])
    def test_faults_name_their_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
        monkeypatch.setattr(files.line_blocks, "__defaults__", (50,))
        line = "1,2,3\n" if read is csv.read else "1 2:3\n"
        with pytest.raises(DataError, match=r"data.csv.*line 101"):
            list(read(a_file(tmp_path, line * 100 + "1,2\n" + line), compiled=True, n_threads=2))

    def test_numba_is_loaded_for_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "numba", raising=False)
        assert not plain.pays(1 << 20)
        assert plain.pays(1 << 30)
        monkeypatch.setitem(sys.modules, "numba", None)
        assert plain.pays(1)


class TestLibsvm:
    def test_labels_weights_and_queries(self) -> None:
        batch = libsvm.decode(b"1:0.5 qid:7 0:1.5 3:-2\n0:2 qid:8 1:4  # a comment\n")
        np.testing.assert_array_equal(batch.dense(), [[1.5, 0, 0, -2], [0, 4, 0, 0]])
        np.testing.assert_array_equal(batch.labels, [1, 0])
        np.testing.assert_array_equal(batch.weights, [0.5, 2])
        np.testing.assert_array_equal(batch.groups, [7, 8])

    def test_labels_may_be_negative(self) -> None:
        batch = libsvm.decode(b"-1:0.5 0:1\n-1:2 0:1\n")
        np.testing.assert_array_equal(batch.labels, [-1, -1])
        np.testing.assert_array_equal(batch.weights, [0.5, 2])

    def test_an_explicit_zero_is_not_missing(self) -> None:
        assert libsvm.decode(b"1 0:0 2:5\n").features.nnz == 2

    def test_requests_may_leave_the_label_out(self) -> None:
        batch = libsvm.decode(b"0:1 1:2\n5 0:3\n", labelled=False)
        np.testing.assert_array_equal(batch.dense(), [[1, 2], [3, 0]])

    @given(matrices)
    def test_agrees_with_scikit_learn(self, rows: Any) -> None:
        import io

        from sklearn.datasets import dump_svmlight_file

        buffer = io.BytesIO()
        dump_svmlight_file(rows, np.arange(len(rows)), buffer)
        dense = libsvm.decode(buffer.getvalue()).dense()
        np.testing.assert_array_equal(dense, rows[:, : dense.shape[1]])

    @pytest.mark.parametrize(
        "text",
        [
            *(b"1 0:1\n1,2,3\n", b"1 0:1\n2 x:3\n", b"1 0:1\n2 3\n", b"1 0:1\n2 0:1:2\n"),
            *(b"1 0:1\n2 -1:3\n", b"1 0:1\n2 -2:3\n"),
        ],
    )
    def test_faults_name_the_line(self, text: bytes) -> None:
        with pytest.raises(DataError, match="line 2"):
            libsvm.decode(text)

    @given(st.binary(max_size=60))
    def test_any_bytes_are_read_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(DataError):
            libsvm.decode(body)


class TestParquet:
    def test_columns_by_place(self, tmp_path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet as arrow_parquet

        path = tmp_path / "data.parquet"
        table = pa.table({"y": [1, 2], "a": [0.5, None], "b": [True, False]})
        arrow_parquet.write_table(table, path)
        batch = concatenated(list(parquet.read(path)))
        np.testing.assert_array_equal(batch.labels, [1, 2])
        np.testing.assert_array_equal(batch.features, np.array([[0.5, 1], [np.nan, 0]], np.float32))
        np.testing.assert_array_equal(parquet.decode(path.read_bytes())[:, 0], [1, 2])

    def test_faults(self, tmp_path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet as arrow_parquet

        with pytest.raises(DataError, match="is not a Parquet file"):
            list(parquet.read(a_file(tmp_path, "1,2,3")))
        good = tmp_path / "good"
        arrow_parquet.write_table(pa.table({"y": range(300_000)}), good, row_group_size=1 << 17)
        content = good.read_bytes()
        with pytest.raises(
            DataError, match=r"data.csv: is not a Parquet file, or damaged: .*Upload it again"
        ):
            list(parquet.read(a_file(tmp_path, content[:-100])))
        torn = content[: len(content) * 2 // 3] + bytes(5000) + content[len(content) * 2 // 3 + 5000 :]
        with pytest.raises(
            DataError, match=r"data.csv: row 131073, or one soon after it, cannot be read: .*upload"
        ):
            list(parquet.read(a_file(tmp_path, torn), label_size=0))
        arrow_parquet.write_table(pa.table({"y": [1], "name": ["x"]}), tmp_path / "texts")
        with pytest.raises(DataError, match="the column 'name' is of type string"):
            list(parquet.read(tmp_path / "texts"))


class TestJson:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"instances": [{"features": [1, 2.5]}]}',
            b'{"instances": [{"data": {"features": {"values": [1, 2.5]}}}]}',
            b'{"instances": [{"data": {"features": {"values": [2.5, 1], "keys": [1, 0], "shape": [2]}}}]}',
            b'{"instances": [[1, 2.5]]}',
            b"[1, 2.5]",
        ],
    )
    def test_shapes_of_a_request(self, body: bytes) -> None:
        np.testing.assert_array_equal(json_lines.decode(body).dense(), [[1, 2.5]])

    def test_lines(self) -> None:
        batch = json_lines.decode_lines(b'{"features": [1, 2]}\n\n{"features": {"values": [3, 4]}}\n')
        np.testing.assert_array_equal(batch.dense(), [[1, 2], [3, 4]])

    @pytest.mark.parametrize(
        "body",
        [
            b"{", b"{}", b'{"instances": []}', b'{"instances": [{"features": "1,2"}]}', b'{"instances": [{"x": 1}]}',
            b'{"instances": [{"features": [1]}, {"features": [1, 2]}]}', b'{"instances": [{"features": ["a"]}]}',
            b'{"instances": [{"features": {"values": [1], "keys": [-1], "shape": [2]}}]}',
            b'{"instances": [{"features": {"values": [1], "keys": [99999999999], "shape": [2]}}]}',
        ],
    )  # fmt: skip
    def test_refusals(self, body: bytes) -> None:
        with pytest.raises(DataError):
            json_lines.decode(body)


def test_files_of_a_channel(tmp_path: Path) -> None:
    for name in ("b.csv", "a/z.csv", "a/y.csv.gz", ".hidden", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"1,2\n") if name.endswith("gz") else b"3,4\n")
    (tmp_path / "empty").write_bytes(b"")
    assert [str(p.relative_to(tmp_path)) for p in channel_files(tmp_path)] == [
        "a/y.csv.gz",
        "a/z.csv",
        "b.csv",
    ]
    rows = concatenated(
        list(channel_batches(Channel("train", tmp_path, "text/csv; label_size=0"), "text/csv"))
    )
    np.testing.assert_array_equal(rows.features, [[1, 2], [3, 4], [3, 4]])


def test_label_size_must_be_0_or_1(tmp_path: Path) -> None:
    with pytest.raises(CustomerError, match="label_size=2"):
        list(channel_batches(Channel("train", tmp_path, "text/csv;label_size=2"), "text/csv"))


_ROWS = np.random.default_rng(0).random((3000, 3), np.float32)
_PACKED = {
    "text/csv": gzip.compress(csv.encode(_ROWS)),
    "text/libsvm": gzip.compress(b"".join(b"1 0:%d\n" % int(1e6 * x) for x in _ROWS[:, 0])),
    "application/x-recordio-protobuf": gzip.compress(recordio.encode(_ROWS)),
}


@pytest.mark.parametrize("content_type", _PACKED)
@pytest.mark.parametrize("fault", ["cut short", "a changed byte", "another check sum"])
def test_a_broken_gzip_is_named_with_the_place(content_type: str, fault: str, tmp_path: Path) -> None:
    packed = bytearray(_PACKED[content_type])
    if fault == "cut short":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2 if fault == "a changed byte" else -8] ^= 0xFF
    (tmp_path / "x.gz").write_bytes(packed)
    place = "record" if "recordio" in content_type else "line"
    # What a changed byte unpacks to may be refused before the end of the stream is.
    with pytest.raises(DataError, match=rf"x\.gz.*{place}s? (from )?\d+") as caught:
        list(channel_batches(Channel("train", tmp_path, content_type), content_type))
    if fault != "a changed byte":
        number = int(str(caught.value).partition(f"{place} ")[2].partition(" ")[0])
        assert "upload it again" in str(caught.value)
        assert number in (3000, 3001) if fault == "another check sum" else 1000 < number < 2000


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(1, 7))
def test_rebatching_keeps_all_rows(sizes: list[int], size: int) -> None:
    rows = np.arange(sum(sizes), dtype=np.float32)[:, None]
    starts = np.cumsum([0, *sizes])
    batches = [Batch(rows[a:b], rows[a:b, 0]) for a, b in itertools.pairwise(starts)]
    result = list(rebatched(iter(batches), size))
    assert all(len(b) == size for b in result[:-1])
    assert sum(map(len, result)) == len(rows)
    if result:
        np.testing.assert_array_equal(concatenated(result).features, rows)


def test_content_types() -> None:
    offered = ("application/json", "text/csv")
    assert ContentType.parse("CSV; Label_Size=0") == ContentType("text/csv", {"label_size": "0"})
    assert accepted("", offered, "application/json").name == "application/json"
    assert accepted("text/csv, application/json", offered, "application/json").name == "text/csv"
    assert accepted("text/csv;q=0.1, */*", offered, "application/json").name == "application/json"
    assert accepted("application/json; verbose=true", offered, "text/csv").parameters == {"verbose": "true"}
    with pytest.raises(RequestError, match="image/png is not supported"):
        accepted("image/png", offered, "text/csv")


class TestArrow:
    @given(st.lists(st.none() | st.floats(width=32)), st.integers(0, 10), st.integers(0, 10))
    def test_as_arrow_itself_would_say(self, values: list[float | None], start: int, length: int) -> None:
        import pyarrow as pa

        array = pa.array(values, pa.float32()).slice(min(start, len(values)), length)
        np.testing.assert_array_equal(arrow.floats(array), array.to_numpy(zero_copy_only=False))
