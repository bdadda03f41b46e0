"""Our own S3 client against the embedded S3, over the wire."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sagesmith.errors import AwsError
from sagesmith.services.s3 import handlers
from sagesmith.store.client import ObjectClient, ServerAway
from sagesmith.store.database import Database
from sagesmith.store.objects import ObjectStore
from tests.aws.conftest import KEY, TEMPORARY, Running

PART = 100_000


@dataclass(frozen=True)
class Address:
    url: str
    ca_file: str = ""
    server_file: str = ""


@pytest.fixture
def store(sqlite_database: Database, tmp_path: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(sqlite_database, tmp_path / "objects", min_part_bytes=1000)
    store.buckets.create("bucket", region="us-east-1", owner="123456789012")
    yield store
    store.close()


@pytest.fixture
def running(store: ObjectStore) -> Iterator[Running]:
    running = Running(handlers(store))
    yield running
    running.close()


@pytest.fixture
def client(running: Running) -> Iterator[ObjectClient]:
    with client_of(running.url) as client:
        yield client


def client_of(url: str, *, server_file: str = "", patience_s: float = 5.0) -> ObjectClient:
    return ObjectClient(
        Address(url, server_file=server_file), lambda: TEMPORARY, "us-east-1", patience_s=patience_s,
        part_bytes=PART, multipart_bytes=3 * PART,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 10, PART, 5 * PART + 17])
@pytest.mark.parametrize("kind", ["file", "bytes", "stream"])
def test_contents_go_there_and_back(client: ObjectClient, tmp_path: Path, size: int, kind: str) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    sources: dict[str, Path | bytes | io.BytesIO] = {
        "file": tmp_path / "source", "bytes": data, "stream": io.BytesIO(data),
    }  # fmt: skip
    etag = client.put("bucket", "a/ü b+c", sources[kind], content_type="text/csv", metadata={"a": "b"})
    head = client.head("bucket", "a/ü b+c")
    assert head is not None
    assert (head.size, head.etag, head.content_type, head.metadata) == (size, etag, "text/csv", {"a": "b"})
    client.get("bucket", "a/ü b+c", tmp_path / "into/got", link=False)
    assert (tmp_path / "into/got").read_bytes() == data
    assert client.read("bucket", "a/ü b+c") == data
    with client.open_stream("bucket", "a/ü b+c") as stream:
        pieces = iter(lambda: stream.read(70_000), b"")
        assert b"".join(piece for piece in pieces if piece is not None) == data
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["got"]


def test_a_file_on_this_machine_is_linked(
    client: ObjectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put("bucket", "k", b"1" * PART)
    head = client.get("bucket", "k", tmp_path / "linked")
    assert (tmp_path / "linked").samefile(head.path)
    client.put("bucket", "k", b"2" * PART)
    assert (tmp_path / "linked").read_bytes() == b"1" * PART

    def refuse(*_given: object, **_options: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    client.get("bucket", "k", tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"2" * PART


def test_keys_are_listed_in_pages(client: ObjectClient, store: ObjectStore) -> None:
    keys = sorted(f"p/{number} ü+&" for number in range(1003))
    for key in keys:
        store.put_bytes("bucket", key, b"x")
    store.put_bytes("bucket", "q", b"")
    assert [one.key for one in client.list("bucket", "p/")] == keys
    assert next(client.list("bucket", "p/")).size == 1
    assert list(client.list("bucket", "none")) == []


def test_copy_and_delete(client: ObjectClient) -> None:
    client.put("bucket", "k ü", b"x")
    client.copy("bucket", "k ü", "bucket", "copy")
    assert client.read("bucket", "copy") == b"x"
    client.delete("bucket", "copy")
    client.delete("bucket", "copy")
    assert client.head("bucket", "copy") is None


def test_refusals_are_aws_errors(client: ObjectClient, running: Running, tmp_path: Path) -> None:
    with pytest.raises(AwsError, match="NoSuchKey"):
        client.get("bucket", "none", tmp_path / "none")
    with pytest.raises(AwsError, match="NoSuchBucket"):
        client.put("nowhere", "k", b"x" * 3 * PART)
    stranger = ObjectClient(
        Address(running.url), lambda: type(KEY)("AKIDNOBODY", "x", KEY.caller), "us-east-1", patience_s=1
    )
    with stranger, pytest.raises(AwsError, match="InvalidAccessKeyId"):
        stranger.read("bucket", "k")
    assert not (tmp_path / "none").exists()


def test_it_waits_for_a_server_that_comes_back_elsewhere(
    store: ObjectStore, running: Running, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    server_file = tmp_path / "server.json"
    announce = threading.Timer(0.3, server_file.write_text, [json.dumps({"http_url": running.url})])
    announce.start()
    with client_of(gone, server_file=str(server_file), patience_s=20) as client:
        client.put("bucket", "k", b"x" * 4 * PART)
        assert client.read("bucket", "k") == b"x" * 4 * PART
    announce.join()
    with client_of(gone, patience_s=0.2) as client, pytest.raises(ServerAway, match="Is the server running"):
        client.read("bucket", "k")


def test_a_stream_goes_on_where_its_connection_broke(client: ObjectClient) -> None:
    data = os.urandom(3_000_000)
    client.put("bucket", "k", data)
    with client.open_stream("bucket", "k") as stream:
        start = stream.read(1000)
        response = stream._response
        assert response is not None
        fp = response._raw.fp
        assert fp is not None
        fp.raw._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        assert start is not None
        assert start + stream.readall() == data
        assert response is not stream._response


def test_a_download_of_an_object_that_is_replaced_meanwhile_is_one_version(
    client: ObjectClient, store: ObjectStore, tmp_path: Path
) -> None:
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.put_bytes("bucket", "k", bytes([number % 256]) * 3 * PART)

    store.put_bytes("bucket", "k", b"\0" * 3 * PART)
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(5):
            try:
                client.get("bucket", "k", tmp_path / "got", link=False)
            except AwsError as error:
                if error.status != 412:  # overtaken each time: said, not hidden
                    raise
            else:
                data = (tmp_path / "got").read_bytes()
                assert data == data[:1] * 3 * PART
    finally:
        stop.set()
        writer.join()
