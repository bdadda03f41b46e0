"""Input channels: which objects belong to this host, under which names, and how they get here.

First everything is listed and checked, then downloaded in parallel. Large channels are hard links to the
store's files where that is possible, and the container must see them read-only; small ones are copies, since
scripts in them are made executable and edited in place by the SDKs' own start commands.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, Final

from sagesmith.errors import AwsError
from sagesmith.instance._artifacts import unpack
from sagesmith.instance._objects import DataError, Objects, split_uri
from sagesmith.instance.spec import ChannelSpec

__all__ = ["SMALL_CHANNEL_BYTES", "Item", "fetch_code", "list_items", "stage"]

SMALL_CHANNEL_BYTES: Final = 32 * 1024 * 1024
_PARALLEL: Final = 8
_MISSING: Final = frozenset({"NoSuchBucket", "NoSuchKey", "404"})


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a channel, and the file's path in the channel's folder."""

    bucket: str
    key: str
    path: PurePosixPath
    size: int


def stage(
    objects: Objects,
    channels: Sequence[ChannelSpec],
    target: Path,
    *,
    hosts: Sequence[str],
    host: str,
    may_link: bool,
    cancelled: Event,
) -> list[str]:
    """Bring *channels* below *target*, and return the names of those that hold links to the store's files.

    Raises:
        DataError: there is nothing under a URI, or a key cannot be a file's name.
    """
    linked: list[str] = []
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="stage") as pool:
        running = []
        for channel in channels:
            items = list_items(objects, channel, hosts, host)
            link = may_link and sum(item.size for item in items) > SMALL_CHANNEL_BYTES
            link = link and channel.compression != "Gzip"
            folder = target / channel.name
            folder.mkdir(parents=True, exist_ok=True)
            running += [
                pool.submit(_fetch, objects, item, folder, channel, link, cancelled) for item in items
            ]
            if link:
                linked.append(channel.name)
        done, waiting = wait(running, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()
    return linked


def fetch_code(objects: Objects, uri: str, archive: Path, target: Path) -> None:
    """Unpack the archive of the user's code at *uri* below *target*; *archive* is where it may lie meanwhile.

    Raises:
        DataError: it is not there, is no gzipped tar, or would land outside of *target*.
    """
    bucket, key = split_uri(uri)
    if objects.head(bucket, key) is None:
        raise DataError(f"Could not find the source code at {uri}, which sagemaker_submit_directory names.")
    objects.get(bucket, key, archive, link=True)
    target.mkdir(parents=True, exist_ok=True)
    try:
        unpack(archive, target, uri, what="source code")
    finally:
        archive.unlink()


def list_items(objects: Objects, channel: ChannelSpec, hosts: Sequence[str], host: str) -> list[Item]:
    """Return the objects of *channel* that belong to *host*.

    Raises:
        DataError: there is nothing under the URI, or a key cannot be a file's name.
    """
    try:
        items = [_checked(item, channel) for item in _items(objects, channel)]
    except AwsError as error:
        if error.code not in _MISSING:
            raise
        items = []
    if not items:
        raise DataError(
            f'Data download failed: No S3 objects found under S3 URL "{channel.s3_uri}" given in input data source'
            f"{f' of channel {channel.name!r}' if channel.name else ''}. Please ensure that the bucket exists, that objects exist under that S3 "
            "prefix, and that the role has s3:ListBucket permission on the bucket."
        )
    if channel.distribution == "ShardedByS3Key":
        items = sorted(items, key=lambda item: item.key)[list(hosts).index(host) :: len(hosts)]
    return items


def _items(objects: Objects, channel: ChannelSpec) -> Iterator[Item]:
    bucket, key = split_uri(channel.s3_uri)
    if channel.s3_data_type == "ManifestFile":
        yield from _manifest_items(objects, channel)
        return
    exact = channel.s3_data_type == "AugmentedManifestFile"
    for entry in objects.list(bucket, key):
        if entry.key.endswith("/") and not entry.size:
            continue  # what consoles make to show a folder
        if not exact or entry.key == key:
            yield Item(bucket, entry.key, PurePosixPath(_below(key, entry.key)), entry.size)


def _below(prefix: str, key: str) -> str:
    """The file's name in the channel: the key without the prefix, sub-folders kept."""
    if key == prefix:
        return key.rpartition("/")[2]
    rest = key[len(prefix) :]
    if not prefix or prefix.endswith("/") or rest.startswith("/"):
        return rest.lstrip("/")
    return key[prefix.rfind("/") + 1 :]  # the prefix ends within a name


def _manifest_items(objects: Objects, channel: ChannelSpec) -> Iterator[Item]:
    first, *rest = entries = _read_manifest(objects, channel) or [{}]
    prefix = str(first.get("prefix", "")) if isinstance(first, dict) else ""
    known = {entry.key: entry.size for entry in objects.list(*split_uri(prefix))} if prefix else {}
    for entry in rest if isinstance(first, dict) else entries:
        if not isinstance(entry, str):
            raise DataError(f"The manifest {channel.s3_uri} has the entry {entry!r}, which is not a string.")
        bucket, key = split_uri(prefix + entry)
        if not prefix:
            known.update((item.key, item.size) for item in objects.list(bucket, key) if item.key == key)
        if key not in known:
            raise DataError(
                f"Data download failed: the manifest {channel.s3_uri} names s3://{bucket}/{key}, which does not exist."
            )
        yield Item(bucket, key, PurePosixPath((entry if prefix else key).lstrip("/")), known[key])


def _read_manifest(objects: Objects, channel: ChannelSpec) -> list[Any]:
    bucket, key = split_uri(channel.s3_uri)
    try:
        entries = json.loads(objects.read(bucket, key))
    except AwsError as error:
        if error.code not in _MISSING:
            raise
        raise DataError(f"Data download failed: there is no manifest at {channel.s3_uri}.") from error
    except ValueError as error:
        raise DataError(f"The manifest {channel.s3_uri} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise DataError(f"The manifest {channel.s3_uri} is not a JSON array.")
    return entries


def _checked(item: Item, channel: ChannelSpec) -> Item:
    if ".." in item.path.parts or item.path.is_absolute() or not item.path.parts or "\0" in str(item.path):
        raise DataError(
            f"Data download failed: key {item.key!r} of channel {channel.name!r} cannot be a file below "
            "/opt/ml/input/data."
        )
    return item


def _fetch(
    objects: Objects, item: Item, folder: Path, channel: ChannelSpec, link: bool, cancelled: Event
) -> None:
    if cancelled.is_set():
        return
    path = folder / item.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        objects.get(item.bucket, item.key, path, link=link)
        if channel.compression == "Gzip":
            _gunzip(path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            f"Data download failed: s3://{item.bucket}/{item.key} is a file where another key needs a folder."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"Data download failed: s3://{item.bucket}/{item.key} is not gzip data, but CompressionType is Gzip."
        ) from error


def _gunzip(path: Path) -> None:
    plain = path.with_name(path.name + ".plain")
    with gzip.open(path) as source, plain.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    path.unlink()
    plain.rename(path.with_suffix("") if path.suffix == ".gz" else path)
