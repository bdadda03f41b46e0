from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from sagesmith.instance import _staging
from sagesmith.instance._objects import DataError
from sagesmith.instance._pipes import Pipe
from sagesmith.instance._staging import stage
from sagesmith.instance.spec import ChannelSpec


@dataclass
class Entry:
    key: str
    size: int


@dataclass
class Facts:
    size: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


class Objects:
    """An object store in a dictionary, by ``bucket/key``."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self.content = content
        self.linked: list[str] = []

    def list(self, bucket: str, prefix: str = "") -> Iterator[Entry]:
        for name in sorted(self.content):
            if name.startswith(f"{bucket}/{prefix}"):
                yield Entry(name.removeprefix(f"{bucket}/"), len(self.content[name]))

    def head(self, bucket: str, key: str) -> Facts | None:
        return Facts() if f"{bucket}/{key}" in self.content else None

    def open(self, bucket: str, key: str, aside: Path) -> io.BytesIO:
        return io.BytesIO(self.content[f"{bucket}/{key}"])

    def read(self, bucket: str, key: str) -> bytes:
        return self.content[f"{bucket}/{key}"]

    def open_stream(self, bucket: str, key: str) -> io.RawIOBase:
        return cast("io.RawIOBase", io.BytesIO(self.content[f"{bucket}/{key}"]))

    def get(self, bucket: str, key: str, path: Path, *, link: bool = True) -> object:
        path.write_bytes(self.content[f"{bucket}/{key}"])
        if link:
            self.linked.append(key)
        return None

    def put(self, bucket: str, key: str, source: Path | bytes, **more: object) -> object:
        raise NotImplementedError

    def delete(self, bucket: str, key: str) -> None:
        raise NotImplementedError


def staged(
    folder: Path, content: Mapping[str, bytes], uri: str, *, host: str = "algo-1", hosts: tuple[str, ...] = ("algo-1",),
    **more: Any,
) -> dict[str, bytes]:  # fmt: skip
    channel = ChannelSpec("train", uri, **more)
    stage(Objects(content), (channel,), folder, hosts=hosts, host=host, may_link=False, cancelled=Event())
    return {
        str(path.relative_to(folder / "train")): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("s3://b/data/train", ["a.csv", "train-2/c.csv", "sub/b.csv"]),
        ("s3://b/data/train/", ["a.csv", "sub/b.csv"]),
        ("s3://b/data/train/a.csv", ["a.csv"]),
        ("s3://b/data/tr", ["train/a.csv", "train/sub/b.csv", "train-2/c.csv"]),
        ("s3://b", ["data/train/a.csv", "data/train/sub/b.csv", "data/train-2/c.csv"]),
    ],
)
def test_the_prefix_is_removed_and_folders_are_kept(tmp_path: Path, uri: str, names: list[str]) -> None:
    content = dict.fromkeys(("b/data/train/a.csv", "b/data/train/sub/b.csv", "b/data/train-2/c.csv"), b"x")
    content["b/data/train/"] = b""
    assert sorted(staged(tmp_path, content, uri)) == sorted(names)


def test_shards_are_a_partition_in_the_order_of_keys(tmp_path: Path) -> None:
    content = {f"b/d/{i}": b"" for i in range(5)}
    hosts = ("algo-1", "algo-2")
    parts = [
        list(
            staged(
                tmp_path / host, content, "s3://b/d/", host=host, hosts=hosts, distribution="ShardedByS3Key"
            )
        )
        for host in hosts
    ]
    assert parts == [["0", "2", "4"], ["1", "3"]]


@pytest.mark.parametrize("prefix", [[{"prefix": "s3://b/d/"}], []])
def test_a_manifest_names_the_objects(tmp_path: Path, prefix: list[Any]) -> None:
    base = "" if prefix else "s3://b/d/"
    manifest = json.dumps([*prefix, f"{base}2", f"{base}sub/1"]).encode()
    content = {"b/m.manifest": manifest, "b/d/2": b"two", "b/d/sub/1": b"one", "b/d/3": b""}
    found = staged(tmp_path, content, "s3://b/m.manifest", s3_data_type="ManifestFile")
    assert sorted(found.values()) == [b"one", b"two"]


def test_gzip_data_is_unpacked(tmp_path: Path) -> None:
    content = {"b/d/a.csv.gz": gzip.compress(b"1,2"), "b/d/plain": gzip.compress(b"3")}
    assert staged(tmp_path, content, "s3://b/d/", compression="Gzip") == {"a.csv": b"1,2", "plain": b"3"}


def test_only_large_channels_are_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_staging, "SMALL_CHANNEL_BYTES", 10)
    objects = Objects({"b/small/x": b"1", "b/large/x": b"1" * 11})
    channels = (ChannelSpec("small", "s3://b/small/"), ChannelSpec("large", "s3://b/large/"))
    linked = stage(objects, channels, tmp_path, hosts=("a",), host="a", may_link=True, cancelled=Event())
    assert linked == ["large"]
    assert objects.linked == ["large/x"]


@pytest.mark.parametrize(
    ("uri", "more", "words"),
    [
        ("s3://b/nothing", {}, "No S3 objects found"),
        ("s3://b/bad/", {}, "cannot be a file"),
        ("s3://b/clash/", {}, "where another key needs a folder"),
        ("file:///etc/passwd", {}, "is not an S3 URI"),
        ("s3://b/plain", {"compression": "Gzip"}, "is not gzip data"),
        ("s3://b/plain", {"s3_data_type": "ManifestFile"}, "is not JSON"),
        ("s3://b/m1", {"s3_data_type": "ManifestFile"}, "does not exist"),
        ("s3://b/m2", {"s3_data_type": "ManifestFile"}, "which is not a string"),
        ("s3://b/m3", {"s3_data_type": "ManifestFile"}, "not a JSON array"),
        ("s3://b/m4", {"s3_data_type": "ManifestFile"}, "cannot be a file"),
    ],
)
def test_bad_data_is_refused(tmp_path: Path, uri: str, more: dict[str, Any], words: str) -> None:
    content = {
        "b/bad/../../../escape": b"x",
        "b/clash/a": b"",
        "b/clash/a/b": b"",
        "b/plain": b"text",
        "b/m1": b'[{"prefix": "s3://b/"}, "gone"]',
        "b/m2": b"[{}, 7]",
        "b/m3": b"{}",
        "b/m4": b'[{"prefix": "s3://b/bad/"}, "../../../escape"]',
    }
    with pytest.raises(DataError, match=words):
        staged(tmp_path / "input", content, uri, **more)
    assert not (tmp_path / "escape").exists()


def piped(folder: Path, content: Mapping[str, bytes], channel: ChannelSpec, epochs: int) -> list[bytes]:
    pipe = Pipe(Objects(content), channel, folder, hosts=("algo-1",), host="algo-1")
    pipe.start(pytest.fail)
    try:
        return [(folder / f"{channel.name}_{epoch}").read_bytes() for epoch in range(epochs)]
    finally:
        pipe.close()


def test_a_pipe_gives_all_objects_in_every_epoch(tmp_path: Path) -> None:
    content = {"b/d/1": b"one\n" * 100_000, "b/d/2": b"two\n"}
    channel = ChannelSpec("train", "s3://b/d/", input_mode="Pipe")
    assert piped(tmp_path, content, channel, 3) == [content["b/d/1"] + b"two\n"] * 3


def test_a_pipe_can_wrap_each_object_and_unpack_it(tmp_path: Path) -> None:
    channel = ChannelSpec("t", "s3://b/d/", input_mode="Pipe", record_wrapper="RecordIO", compression="Gzip")
    (data,) = piped(tmp_path, {"b/d/1": gzip.compress(b"hello")}, channel, 1)
    assert data == struct.pack("<II", 0xCED7230A, 5) + b"hello\0\0\0"


def test_a_pipe_gives_the_attributes_of_an_augmented_manifest(tmp_path: Path) -> None:
    lines = b'{"source-ref": "s3://b/img", "label": 3, "text": "x"}\n'
    channel = ChannelSpec(
        "t",
        "s3://b/m.manifest",
        "AugmentedManifestFile",
        input_mode="Pipe",
        attribute_names=("source-ref", "label"),
    )
    assert piped(tmp_path, {"b/m.manifest": lines, "b/img": b"IMG"}, channel, 1) == [b"IMG3"]
