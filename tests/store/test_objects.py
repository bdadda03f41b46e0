"""What the object store does, on both databases, with contents in files and in the database."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from sagesmith.errors import AwsError
from sagesmith.store.checksums import Integrity
from sagesmith.store.database import Database
from sagesmith.store.objects import Conditions, ObjectStore, Properties
from sagesmith.store.uploads import ClaimedPart, Part
from tests.conftest import FakeClock

LARGE = 100_000


class BrokenReader:
    """Gives *data*, then raises *error*."""

    def __init__(self, data: bytes, *, error: Exception) -> None:
        self._data = data
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        if not self._data:
            raise self._error
        data, self._data = self._data[:size], self._data[size:]
        return data


def code_of(error: pytest.ExceptionInfo[AwsError]) -> str:
    return error.value.code


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class ObjectStoreContract:
    """What every object store does. Subclass it and provide the `store` fixture."""

    def test_a_broken_write_leaves_the_old_object(self, store: ObjectStore, folder: Path) -> None:
        store.put("bucket", "key", io.BytesIO(b"old"))
        before = files_in(folder)
        for size in (2, LARGE):
            with pytest.raises(ConnectionError):
                store.put("bucket", "key", BrokenReader(b"x" * size, error=ConnectionError("peer left")))
        assert content_of(store, "key") == b"old"
        assert files_in(folder) == before

    @pytest.mark.parametrize("size", [0, 1, LARGE])
    def test_an_object_comes_back_as_it_was_put(
        self, store: ObjectStore, clock: FakeClock, size: int
    ) -> None:
        data = os.urandom(size)
        properties = Properties({"ContentType": "text/csv"}, {"a": "b"}, {"t": "v"}, "STANDARD_IA")
        store.put("bucket", "key", io.BytesIO(data), properties=properties)
        info = store.head("bucket", "key")
        assert (info.size, info.etag) == (size, hashlib.md5(data).hexdigest())
        assert info.modified == clock.now
        assert info.properties == properties
        assert content_of(store, "key") == data

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_a_reader_keeps_its_version_when_the_object_changes(self, store: ObjectStore, size: int) -> None:
        store.put("bucket", "key", io.BytesIO(b"1" * size))
        reader = store.get("bucket", "key")
        store.put("bucket", "key", io.BytesIO(b"2" * size))
        store.delete("bucket", "key")
        assert reader.read() == b"1" * size
        reader.close()

    def test_a_path_stays_good_for_a_while_after_its_object_is_gone(
        self, store: ObjectStore, folder: Path
    ) -> None:
        info = store.put("bucket", "key", io.BytesIO(b"1" * LARGE))
        content = store.content(info)
        assert content is not None
        assert content.path is not None
        kept = folder / "kept"
        kept.hardlink_to(content.path)
        store.delete("bucket", "key")
        assert content.path.read_bytes() == b"1" * LARGE
        store.close()
        assert not content.path.exists()
        assert kept.read_bytes() == b"1" * LARGE

    def test_what_is_missing_is_named(self, store: ObjectStore) -> None:
        with pytest.raises(AwsError) as error:
            store.head("bucket", "key")
        assert code_of(error) == "NoSuchKey"
        for act in (
            lambda: store.head("nowhere", "key"),
            lambda: store.put("nowhere", "key", io.BytesIO(b"")),
            lambda: store.delete("nowhere", "key"),
            lambda: store.list("nowhere"),
        ):
            with pytest.raises(AwsError) as error:
                act()
            assert code_of(error) == "NoSuchBucket"

    @pytest.mark.parametrize(
        "key", ["../../etc/passwd", "/", "//a//", "a/./b", "ü/\U0001f600", "a\nb\x01", "é" * 512, "%2e"]
    )
    def test_any_key_is_only_a_name(self, store: ObjectStore, key: str) -> None:
        store.put("bucket", key, io.BytesIO(b"x" * LARGE))
        assert [found.key for found in store.list("bucket").objects] == [key]
        assert content_of(store, key)[:1] == b"x"

    def test_keys_have_limits(self, store: ObjectStore) -> None:
        for key, code in (
            ("é" * 513, "KeyTooLongError"),
            ("a\0b", "InvalidArgument"),
            ("", "InvalidArgument"),
        ):
            with pytest.raises(AwsError) as error:
                store.put("bucket", key, io.BytesIO(b""))
            assert code_of(error) == code

    def test_conditions_are_decided_in_one_place(self, store: ObjectStore) -> None:
        created: list[bytes] = []
        barrier = threading.Barrier(6)

        def put(number: int) -> None:
            barrier.wait()
            with suppress(AwsError):
                store.put(
                    "bucket", "key", io.BytesIO(b"%d" % number), conditions=Conditions(if_none_match="*")
                )
                created.append(b"%d" % number)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(put, range(6)))
        assert [content_of(store, "key")] == created

        etag = store.head("bucket", "key").etag
        store.put("bucket", "key", io.BytesIO(b"new"), conditions=Conditions(if_match=f'"{etag}"'))
        with pytest.raises(AwsError) as error:
            store.put("bucket", "key", io.BytesIO(b"newer"), conditions=Conditions(if_match=etag))
        assert code_of(error) == "PreconditionFailed"
        with pytest.raises(AwsError) as error:
            store.put("bucket", "none", io.BytesIO(b"newer"), conditions=Conditions(if_match=etag))
        assert code_of(error) == "NoSuchKey"

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_a_content_that_is_not_as_announced_is_refused(
        self, store: ObjectStore, folder: Path, size: int
    ) -> None:
        data = b"d" * size
        wrong = base64.b64encode(zlib.crc32(data + b"x").to_bytes(4, "big")).decode()
        for integrity, code in (
            (Integrity(algorithm="CRC32", value=lambda: wrong), "BadDigest"),
            (Integrity(algorithm="CRC32", value=lambda: "?"), "InvalidRequest"),
            (Integrity(content_md5=base64.b64encode(b"0" * 16).decode()), "BadDigest"),
            (Integrity(content_md5="nonsense"), "InvalidDigest"),
            (Integrity(size=size + 1), "IncompleteBody"),
            (Integrity(algorithm="XXHASH64"), "NotImplemented"),
        ):
            with pytest.raises(AwsError) as error:
                store.put("bucket", "key", io.BytesIO(data), integrity=integrity)
            assert code_of(error) == code
        assert store.find("bucket", "key") is None
        assert not files_in(folder)

    def test_a_copy_is_independent_of_its_source(self, store: ObjectStore) -> None:
        for size in (3, LARGE):
            source = store.put("bucket", "key", io.BytesIO(b"c" * size))
            copy = store.copy(source, "bucket", "copy", properties=Properties({"ContentType": "a/b"}))
            assert copy.etag == source.etag
            store.delete("bucket", "key")
            store.close()
            assert content_of(store, "copy") == b"c" * size
            assert store.head("bucket", "copy").properties.members == {"ContentType": "a/b"}

    def test_many_writers_of_one_key_leave_one_object(self, store: ObjectStore, folder: Path) -> None:
        def put(number: int) -> None:
            for size in (100, LARGE):
                store.put("bucket", "key", io.BytesIO(bytes([number]) * size))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(8)))
        data = content_of(store, "key")
        assert data == data[:1] * len(data)
        store.close()
        assert len(files_in(folder)) <= 1

    def test_buckets_are_deleted_when_empty(self, store: ObjectStore) -> None:
        store.put("bucket", "key", io.BytesIO(b""))
        with pytest.raises(AwsError) as error:
            store.delete_bucket("bucket")
        assert code_of(error) == "BucketNotEmpty"
        store.delete_many("bucket", ["key", "never"])
        store.uploads.create("bucket", "key", initiator="", properties=Properties())
        store.delete_bucket("bucket")
        with pytest.raises(AwsError) as error:
            store.buckets.get("bucket")
        assert code_of(error) == "NoSuchBucket"

    # ---- listing ------------------------------------------------------------------------------------

    def test_a_listing_is_what_sorting_and_grouping_would_give(self, store: ObjectStore) -> None:
        keys = [
            "asdf",
            "boo/",
            "boo/bar",
            "boo/baz/xyzzy",
            "cquux/bla",
            "cquux/thud",
            "zz",
            "é",
            "\U0001f600",
            "~",
        ]
        keys += [f"many/{number:03d}" for number in range(150)]
        keys += [f"folder{number:03d}/{name}" for number in range(40) for name in "abc"]
        for key in keys:
            store.put_bytes("bucket", key, b"")
        for prefix in ("", "boo/", "b", "folder", "nothing", "many/1"):
            for delimiter in ("", "/", "o"):
                expected = grouped(keys, prefix, delimiter)
                for limit in (1, 2, 7, 1000):
                    assert walked(store, prefix, delimiter, limit) == expected, (prefix, delimiter, limit)
        assert store.list("bucket", delimiter="/", after="boo/").objects[0].key == "zz"
        assert store.list("bucket", delimiter="/", after="boo/").prefixes[0] == "cquux/"
        assert store.list("bucket", delimiter="/", after="boo/bar").prefixes[0] == "boo/"

    # ---- multipart ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("order", [[1, 2, 3], [3, 1, 2], [2, 3, 1]])
    def test_parts_make_an_object_in_whatever_order_they_come(
        self, store: ObjectStore, folder: Path, order: list[int]
    ) -> None:
        contents = {1: b"1" * 5000, 2: b"2" * 5000, 3: b"3" * 70}
        upload = store.uploads.create("bucket", "key", initiator="me", properties=Properties())
        parts = {number: self.put_part(store, upload.id, number, contents[number]) for number in order}
        info = store.uploads.complete("bucket", "key", upload.id, claim(parts[n] for n in (1, 2, 3)))
        whole = b"".join(contents.values())
        assert content_of(store, "key") == whole
        digests = b"".join(hashlib.md5(contents[number]).digest() for number in (1, 2, 3))
        assert info.etag == hashlib.md5(digests).hexdigest() + "-3"
        assert [part.size for part in store.uploads.parts(info.upload)] == [5000, 5000, 70]
        again = store.uploads.complete("bucket", "key", upload.id, claim(parts[n] for n in (1, 2, 3)))
        assert again.version == info.version
        store.close()
        assert len(files_in(folder)) == 1

    def test_a_part_sent_again_takes_the_place_of_the_first(self, store: ObjectStore) -> None:
        upload = store.uploads.create("bucket", "key", initiator="me", properties=Properties())
        self.put_part(store, upload.id, 1, b"1" * 5000)
        second = self.put_part(store, upload.id, 2, b"2" * 5000)
        with pytest.raises(ConnectionError):
            store.uploads.put_part(
                "bucket", "key", upload.id, 1,
                BrokenReader(b"x" * 3000, error=ConnectionError("peer left")), Integrity(size=5000),
            )  # fmt: skip
        unlisted = self.put_part(store, upload.id, 3, b"3" * 5000)
        first = self.put_part(store, upload.id, 1, b"4" * 4999)
        assert unlisted.number == 3
        store.uploads.complete("bucket", "key", upload.id, claim([first, second]))
        assert content_of(store, "key") == b"4" * 4999 + b"2" * 5000

    def test_a_part_that_breaks_off_can_be_sent_again(self, store: ObjectStore) -> None:
        upload = store.uploads.create("bucket", "key", initiator="me", properties=Properties())
        with pytest.raises(ConnectionError):
            store.uploads.put_part(
                "bucket", "key", upload.id, 1,
                BrokenReader(b"x" * 3000, error=ConnectionError("peer left")), Integrity(size=5000),
            )  # fmt: skip
        assert not store.uploads.parts(upload.id)
        part = self.put_part(store, upload.id, 1, b"1" * 5000)
        store.uploads.complete("bucket", "key", upload.id, claim([part]))
        assert content_of(store, "key") == b"1" * 5000

    def test_completing_a_part_of_the_parts_loses_none_if_it_is_refused(self, store: ObjectStore) -> None:
        store.put_bytes("bucket", "key", b"there")
        upload = store.uploads.create("bucket", "key", initiator="me", properties=Properties())
        parts = [self.put_part(store, upload.id, number, b"%d" % number * 5000) for number in (1, 2, 3)]
        with pytest.raises(AwsError) as error:
            store.uploads.complete(
                "bucket", "key", upload.id, claim(parts[:2]), conditions=Conditions(if_none_match="*")
            )
        assert code_of(error) == "PreconditionFailed"
        store.uploads.complete("bucket", "key", upload.id, claim(parts))
        assert content_of(store, "key") == b"1" * 5000 + b"2" * 5000 + b"3" * 5000

    def test_wrong_lists_of_parts_are_refused(self, store: ObjectStore) -> None:
        upload = store.uploads.create("bucket", "key", initiator="me", properties=Properties())
        small = self.put_part(store, upload.id, 1, b"1" * 10)
        last = self.put_part(store, upload.id, 2, b"2" * 10)
        for claimed, code in (
            ([], "MalformedXML"),
            ([ClaimedPart(2, last.etag), ClaimedPart(1, small.etag)], "InvalidPartOrder"),
            ([ClaimedPart(1, small.etag), ClaimedPart(1, small.etag)], "InvalidPartOrder"),
            ([ClaimedPart(1, last.etag)], "InvalidPart"),
            ([ClaimedPart(7, last.etag)], "InvalidPart"),
            ([ClaimedPart(1, small.etag), ClaimedPart(2, last.etag)], "EntityTooSmall"),
        ):
            with pytest.raises(AwsError) as error:
                store.uploads.complete("bucket", "key", upload.id, claimed)
            assert code_of(error) == code
        with pytest.raises(AwsError) as error:
            store.uploads.complete("bucket", "other", upload.id, claim([small]))
        assert code_of(error) == "NoSuchUpload"

    def test_an_aborted_upload_leaves_nothing(self, store: ObjectStore, folder: Path) -> None:
        upload = store.uploads.create("bucket", "key", initiator="me", properties=Properties())
        self.put_part(store, upload.id, 1, b"1" * 5000)
        self.put_part(store, upload.id, 2, b"1" * 5001)
        assert [found.id for found in store.uploads.pending("bucket", prefix="k")] == [upload.id]
        store.uploads.abort("bucket", "key", upload.id)
        store.close()
        assert not files_in(folder)
        assert not store.uploads.pending("bucket")
        with pytest.raises(AwsError) as error:
            self.put_part(store, upload.id, 1, b"1" * 5000)
        assert code_of(error) == "NoSuchUpload"

    @pytest.mark.parametrize(
        ("algorithm", "kind"), [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("SHA256", "COMPOSITE")]
    )
    def test_an_upload_has_a_checksum_of_the_whole(
        self, store: ObjectStore, algorithm: str, kind: str
    ) -> None:
        upload = store.uploads.create(
            "bucket", "key", initiator="me", properties=Properties(), checksum_algorithm=algorithm,
            checksum_kind=kind,
        )  # fmt: skip
        parts = [
            self.put_part(store, upload.id, 1, b"1" * 5000),
            self.put_part(store, upload.id, 2, b"2" * 99),
        ]
        info = store.uploads.complete("bucket", "key", upload.id, claim(parts))
        assert info.checksum is not None
        hashes = [base64.b64decode(part.checksum) for part in parts]
        expected = {
            ("CRC32", "COMPOSITE"): zlib.crc32(b"".join(hashes)).to_bytes(4, "big"),
            ("CRC32", "FULL_OBJECT"): zlib.crc32(b"1" * 5000 + b"2" * 99).to_bytes(4, "big"),
            ("SHA256", "COMPOSITE"): hashlib.sha256(b"".join(hashes)).digest(),
        }[algorithm, kind]
        suffix = "-2" if kind == "COMPOSITE" else ""
        assert info.checksum.value == base64.b64encode(expected).decode() + suffix

    def put_part(self, store: ObjectStore, upload: str, number: int, data: bytes) -> Part:
        return store.uploads.put_part(
            "bucket", "key", upload, number, io.BytesIO(data), Integrity(size=len(data))
        )


def content_of(store: ObjectStore, key: str) -> bytes:
    with store.get("bucket", key) as reader:
        return reader.read()


def claim(parts: Iterable[Part]) -> list[ClaimedPart]:
    return [ClaimedPart(part.number, part.etag, part.checksum) for part in parts]


def grouped(keys: list[str], prefix: str, delimiter: str) -> list[str]:
    entries = set()
    for key in keys:
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            entries.add(key if cut < 0 else key[: cut + len(delimiter)])
    return sorted(entries, key=lambda text: text.encode())


def walked(store: ObjectStore, prefix: str, delimiter: str, limit: int) -> list[str]:
    entries: list[str] = []
    after = ""
    while True:
        page = store.list("bucket", prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        found = [*(one.key for one in page.objects), *page.prefixes]
        assert len(found) <= limit
        entries += sorted(found, key=lambda text: text.encode())
        if not page.next_after:
            return entries
        assert len(found) == limit
        after = page.next_after


class TestObjectStore(ObjectStoreContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "objects"

    @pytest.fixture
    def store(self, database: Database, folder: Path, clock: FakeClock) -> Iterator[ObjectStore]:
        store = ObjectStore(database, folder, clock=clock, inline_bytes=64, min_part_bytes=1000)
        store.buckets.create("bucket", region="us-east-1", owner="123456789012")
        yield store
        store.close()

    def test_a_sweep_removes_only_what_nobody_names(
        self, store: ObjectStore, database: Database, folder: Path
    ) -> None:
        store.put_bytes("bucket", "kept", b"k" * LARGE)
        upload = store.uploads.create("bucket", "up", initiator="me", properties=Properties())
        for number, data in ((1, b"1" * 5000), (2, b"2" * 5001)):
            store.uploads.put_part(
                "bucket", "up", upload.id, number, io.BytesIO(data), Integrity(size=len(data))
            )
        named = set(files_in(folder))
        for place in ("data/00/00garbage", "tmp/garbage"):
            (folder / place).write_bytes(b"x")
        last = (folder / place).stat().st_ctime_ns
        while folder.stat().st_ctime_ns <= last:  # the file system's clock goes in steps
            os.utime(folder)
        next_store = ObjectStore(database, folder)
        (folder / "data/00/00new").write_bytes(b"being written")
        assert next_store.sweep() == 2
        assert set(files_in(folder)) == named | {folder / "data/00/00new"}
        assert next_store.sweep() == 0
