"""Where the user's code comes from, and how it gets to its place.

An ``s3://`` archive was unpacked by the platform before the container started; elsewhere boto3 fetches it, if it
is there. A path names an archive or a folder in the container, such as one in the channel ``code``.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from sagesmith_toolkit.failures import UserCodeError

__all__ = ["place_code", "unpack"]


def place_code(source: str, code_dir: Path) -> None:
    """Bring the code at *source* into *code_dir*; what was staged there already stays.

    Raises:
        UserCodeError: there is nothing at *source*, or it is not an archive that may be unpacked.
    """
    code_dir.mkdir(parents=True, exist_ok=True)
    if not source or any(code_dir.iterdir()):
        return
    import shutil  # the platform mostly has placed it already, and these imports would delay the script
    import tempfile

    if source.startswith("s3://"):
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "sourcedir.tar.gz")
            _fetch(source, archive)
            unpack(archive, code_dir)
        return
    path = Path(source[len("file://") :] if source.startswith("file://") else source)
    if path.is_dir():
        for entry in path.iterdir():
            if entry.is_dir():
                shutil.copytree(str(entry), str(code_dir / entry.name))
            else:
                shutil.copy2(str(entry), str(code_dir / entry.name))
    elif path.is_file():
        unpack(path, code_dir)
    else:
        raise UserCodeError("ClientError: there is no code at %s (sagemaker_submit_directory)." % source)


def unpack(archive: Path, target: Path) -> None:
    """Unpack the tar *archive* (gzip or plain) below *target*.

    Raises:
        UserCodeError: it is no tar, or a member would land or point outside of *target*.
    """
    import tarfile

    try:
        with tarfile.open(str(archive)) as tar:
            for member in tar.getmembers():
                _check(member, target)
            if hasattr(tarfile, "data_filter"):
                tar.extractall(str(target), filter="data")
            else:
                tar.extractall(str(target))  # noqa: S202 (each member was checked)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserCodeError(
            "ClientError: the archive %s cannot be unpacked: %s" % (archive, error)
        ) from error


def _check(member: Any, target: Path) -> None:
    root = os.path.realpath(str(target))
    places = [member.name]
    if member.issym():
        places.append(os.path.join(os.path.dirname(member.name), member.linkname))
    elif member.islnk():
        places.append(member.linkname)
    elif not (member.isfile() or member.isdir()):
        raise UserCodeError("ClientError: %r in the archive is neither a file nor a folder." % member.name)
    for place in places:
        where = os.path.realpath(os.path.join(root, place))
        if os.path.isabs(place) or os.path.commonpath([root, where]) != root:
            raise UserCodeError("ClientError: %r in the archive leads out of its folder." % member.name)


def _fetch(uri: str, path: Path) -> None:
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError:
        raise UserCodeError(
            "ClientError: the code at %s was not staged, and boto3 is not installed to fetch it." % uri
        ) from None
    bucket, _, key = uri[len("s3://") :].partition("/")
    endpoint = os.environ.get("S3_ENDPOINT_URL") or None
    boto3.client("s3", endpoint_url=endpoint).download_file(bucket, key, str(path))
