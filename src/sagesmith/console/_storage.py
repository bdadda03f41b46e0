"""S3: buckets and folders, previews of tables and images, downloads and uploads by short-lived URLs."""

from __future__ import annotations

import io
import json
from pathlib import PurePosixPath
from typing import Any, Final

from sagesmith.console._http import Answer, path_of, redirect
from sagesmith.console._pages import Context, Pages
from sagesmith.sdk import SdkError

__all__ = ["pages"]

pages = Pages()
_URL_S: Final = 120
_PREVIEW_BYTES: Final = 256 << 10
_PARQUET_BYTES: Final = 64 << 20
_ROWS: Final = 50
_IMAGES: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_TEXTS: Final = (
    ".txt",
    ".json",
    ".jsonl",
    ".log",
    ".py",
    ".sh",
    ".yaml",
    ".yml",
    ".md",
    ".libsvm",
    ".svm",
    ".out",
)


@pages.page("GET", "/s3")
def buckets(context: Context) -> Answer:
    """The buckets."""
    found = context.call("s3", "list_buckets")["Buckets"]
    return context.page("buckets.html", "S3", buckets=found)


@pages.page("GET", "/s3/{bucket}")
def folder(context: Context) -> Answer:
    """What lies below a prefix."""
    bucket, prefix = context.names["bucket"], context.request.one("prefix")
    token = context.request.one("next")
    more = {"ContinuationToken": token} if token else {}
    answer = context.call(
        "s3", "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=200, **more
    )
    following = answer.get("NextContinuationToken", "")
    crumbs, so_far = [], ""
    for part in prefix.split("/")[:-1]:
        so_far += part + "/"
        crumbs.append((part, path_of("s3", bucket, prefix=so_far)))
    return context.page(
        "folder.html", bucket, bucket=bucket, prefix=prefix, crumbs=crumbs,
        folders=[found["Prefix"] for found in answer.get("CommonPrefixes", ())],
        objects=[found for found in answer.get("Contents", ()) if found["Key"] != prefix],
        more=path_of("s3", bucket, prefix=prefix, next=following) if following else "",
    )  # fmt: skip


@pages.page("GET", "/s3/{bucket}/object")
def an_object(context: Context) -> Answer:
    """One object, with a preview if it is a table, a text or an image."""
    bucket, key = context.names["bucket"], context.request.one("key")
    head = context.call("s3", "head_object", Bucket=bucket, Key=key)
    preview: dict[str, Any] = {"kind": "none", "trouble": ""}
    try:
        preview |= _preview(context, bucket, key, head["ContentLength"])
    except (ValueError, SdkError, OSError) as error:
        preview["trouble"] = f"There is no preview: {error}"
    return context.page("object.html", key, bucket=bucket, key=key, head=head, preview=preview,
                        parent=key.rpartition("/")[0] + "/" if "/" in key else "")  # fmt: skip


def _preview(context: Context, bucket: str, key: str, size: int) -> dict[str, Any]:
    suffix = PurePosixPath(key.lower()).suffix
    if suffix in _IMAGES:
        return {"kind": "image"}
    if suffix == ".parquet":
        if size > _PARQUET_BYTES:
            raise ValueError("the file is too large to be opened here; download it.")
        import pandas as pd

        body = context.call("s3", "get_object", Bucket=bucket, Key=key)["Body"].read()
        frame = pd.read_parquet(io.BytesIO(body))
        return {
            "kind": "table", "header": [str(name) for name in frame.columns],
            "rows": [[str(cell) for cell in row] for row in frame.head(_ROWS).itertuples(index=False)],
            "note": f"{len(frame)} rows, {frame.shape[1]} columns",
        }  # fmt: skip
    if suffix not in (".csv", ".tsv", *_TEXTS) or not size:
        return {}
    more = {"Range": f"bytes=0-{_PREVIEW_BYTES - 1}"}
    text = (
        context.call("s3", "get_object", Bucket=bucket, Key=key, **more)["Body"]
        .read()
        .decode("utf-8", "replace")
    )
    if suffix in (".csv", ".tsv"):
        import csv

        rows = list(csv.reader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ","))
        if size > _PREVIEW_BYTES:
            rows = rows[:-1]
        width = max((len(row) for row in rows[: _ROWS + 1]), default=0)
        header = rows[0] if rows and not _numeric(rows[0]) else [str(i) for i in range(width)]
        content = rows[1:] if rows and not _numeric(rows[0]) else rows
        return {
            "kind": "table",
            "header": header,
            "rows": content[:_ROWS],
            "note": f"the first {min(_ROWS, len(content))} rows",
        }
    return {"kind": "text", "text": text[:20_000]}


def _numeric(row: list[str]) -> bool:
    try:
        [float(cell) for cell in row if cell]
    except ValueError:
        return False
    return True


@pages.page("GET", "/s3/{bucket}/download")
def download(context: Context) -> Answer:
    """Send the browser to the object itself, by a URL that is good for two minutes."""
    return redirect(_signed(context, "get_object", context.request.one("key")))


@pages.page("POST", "/s3/{bucket}/upload")
def upload(context: Context) -> Answer:
    """Return a URL to which the browser may put a file within two minutes."""
    key = context.request.one("key")
    if not key:
        raise SdkError("The file needs a name.")
    url = _signed(context, "put_object", key)
    return Answer(body=json.dumps({"url": url}).encode(), content_type="application/json")


def _signed(context: Context, operation: str, key: str) -> str:
    session = context.visit.known_as(context.request.headers.get("host", ""))
    url: str = session.client("s3").generate_presigned_url(
        operation, Params={"Bucket": context.names["bucket"], "Key": key}, ExpiresIn=_URL_S
    )
    return url
