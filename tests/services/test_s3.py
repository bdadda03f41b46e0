"""The embedded S3 as real boto3 clients see it, over the wire."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
import re
import socket
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from sagesmith.services.s3 import handlers
from sagesmith.signing import sign
from sagesmith.store.database import Database
from sagesmith.store.objects import ObjectStore
from tests.aws.conftest import KEY, Running

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("s3")
    database = Database(f"sqlite:///{folder}/sagesmith.db")
    database.migrate()
    store = ObjectStore(database, folder / "objects", min_part_bytes=64 * 1024)
    yield store
    store.close()
    database.close()


@pytest.fixture(scope="module")
def running(store: ObjectStore) -> Iterator[Running]:
    running = Running(handlers(store))
    yield running
    running.close()


@pytest.fixture(scope="module")
def shared_client(running: Running) -> Any:
    return running.client("s3")


@pytest.fixture
def s3(shared_client: Any, store: ObjectStore) -> Iterator[Any]:
    """A client; there is one bucket, `bucket`, and it is empty."""
    shared_client.create_bucket(Bucket="bucket")
    yield shared_client
    for bucket in store.buckets.list():
        store.delete_many(bucket.name, [one.key for one in store.list(bucket.name).objects])
        store.delete_bucket(bucket.name)


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=rf"\({code}\)")


# ---- buckets ------------------------------------------------------------------------------------------------


def test_buckets_come_and_go(s3: Any, running: Running) -> None:
    s3.create_bucket(Bucket="bucket")  # in us-east-1 that is no error
    with refused("InvalidBucketName"):
        s3.create_bucket(Bucket="192.168.5.4")
    for number in range(5):
        s3.create_bucket(
            Bucket=f"paged-{number}", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
    with refused("BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket="paged-1", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket="paged-0")["LocationConstraint"] == "eu-west-1"
    assert s3.get_bucket_location(Bucket="bucket")["LocationConstraint"] is None
    assert s3.head_bucket(Bucket="paged-0")["BucketRegion"] == "eu-west-1"
    pages = s3.get_paginator("list_buckets").paginate(Prefix="paged", PaginationConfig={"PageSize": 2})
    assert [one["Name"] for page in pages for one in page["Buckets"]] == [f"paged-{n}" for n in range(5)]
    assert len(s3.list_buckets()["Buckets"]) == 6
    s3.put_object(Bucket="bucket", Key="key", Body=b"")
    with refused("BucketNotEmpty"):
        s3.delete_bucket(Bucket="bucket")
    s3.delete_object(Bucket="bucket", Key="key")
    s3.delete_bucket(Bucket="bucket")
    s3.get_waiter("bucket_not_exists").wait(Bucket="bucket", WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    with refused("404"):
        s3.head_bucket(Bucket="bucket")


def test_a_bucket_of_somebody_else_is_not_touched(s3: Any) -> None:
    s3.head_bucket(Bucket="bucket", ExpectedBucketOwner="123456789012")
    with refused("403"):
        s3.head_bucket(Bucket="bucket", ExpectedBucketOwner="999999999999")
    with refused("AccessDenied"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"x", ExpectedBucketOwner="999999999999")


def test_settings_are_told_as_they_were_given(s3: Any) -> None:
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    lifecycle = {
        "Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "a/"}, "Expiration": {"Days": 3}}]
    }
    cors = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}
    with refused("ServerSideEncryptionConfigurationNotFoundError"):
        s3.get_bucket_encryption(Bucket="bucket")
    s3.put_bucket_encryption(Bucket="bucket", ServerSideEncryptionConfiguration=encryption)
    assert s3.get_bucket_encryption(Bucket="bucket")["ServerSideEncryptionConfiguration"] == encryption
    s3.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration=lifecycle)
    assert s3.get_bucket_lifecycle_configuration(Bucket="bucket")["Rules"] == lifecycle["Rules"]
    s3.delete_bucket_lifecycle(Bucket="bucket")
    with refused("NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket="bucket")
    s3.put_bucket_cors(Bucket="bucket", CORSConfiguration=cors)
    assert s3.get_bucket_cors(Bucket="bucket")["CORSRules"] == cors["CORSRules"]
    s3.put_bucket_tagging(Bucket="bucket", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_bucket_tagging(Bucket="bucket")["TagSet"] == [{"Key": "a", "Value": "b"}]
    s3.delete_bucket_tagging(Bucket="bucket")
    with refused("NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket="bucket")
    policy = '{"Statement": [{"Effect": "Allow", "Resource": "arn:aws:s3:::buck*/x"}]}'
    with refused("NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket="bucket")
    s3.put_bucket_policy(Bucket="bucket", Policy=policy)
    assert s3.get_bucket_policy(Bucket="bucket")["Policy"] == policy
    with refused("MalformedPolicy"):
        s3.put_bucket_policy(Bucket="bucket", Policy="{")
    with refused("MalformedPolicy"):
        s3.put_bucket_policy(Bucket="bucket", Policy=policy.replace("buck*", "other"))
    block = s3.get_public_access_block(Bucket="bucket")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    s3.delete_public_access_block(Bucket="bucket")
    with refused("NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(Bucket="bucket")
    assert "Status" not in s3.get_bucket_versioning(Bucket="bucket")
    with refused("NotImplemented"):
        s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Suspended"})
    assert s3.get_bucket_versioning(Bucket="bucket")["Status"] == "Suspended"
    assert s3.get_bucket_acl(Bucket="bucket")["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket="bucket")
    s3.put_bucket_notification_configuration(Bucket="bucket", NotificationConfiguration={})
    with refused("AccessControlListNotSupported"):
        s3.put_bucket_acl(Bucket="bucket", ACL="public-read")


# ---- objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16 * 1024 + 1, 3 * MIB])
def test_an_object_and_all_that_is_kept_with_it_comes_back(s3: Any, size: int) -> None:
    data = os.urandom(size)
    answer = s3.put_object(
        Bucket="bucket", Key="a/ü b+c", Body=data, ContentType="text/csv", CacheControl="no-store",
        ContentEncoding="gzip", Metadata={"Answer": "42"}, Tagging="a=b&c=d%20e", StorageClass="STANDARD_IA",
        ServerSideEncryption="aws:kms", SSEKMSKeyId="my-key",
    )  # fmt: skip
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    assert answer["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert (answer["ChecksumCRC32"], answer["SSEKMSKeyId"]) == (crc, "my-key")
    got = s3.get_object(Bucket="bucket", Key="a/ü b+c", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    head = s3.head_object(Bucket="bucket", Key="a/ü b+c", ChecksumMode="ENABLED")
    for one in (got, head):
        assert one["ContentLength"] == size
        assert one["Metadata"] == {"answer": "42"}
        assert (one["ContentType"], one["CacheControl"], one["ContentEncoding"]) == (
            "text/csv",
            "no-store",
            "gzip",
        )
        assert (one["StorageClass"], one["ServerSideEncryption"]) == ("STANDARD_IA", "aws:kms")
        assert (one["ChecksumCRC32"], one["ChecksumType"]) == (crc, "FULL_OBJECT")
    assert got["TagCount"] == 2
    tags = s3.get_object_tagging(Bucket="bucket", Key="a/ü b+c")["TagSet"]
    assert tags == [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d e"}]


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "CRC32C", "SHA1", "SHA256"])
def test_checksums_are_compared(s3: Any, algorithm: str) -> None:
    values = {"CRC64NVME": "rosUhgp5mIg=", "CRC32C": "4waSgw==", "CRC32": "y/Q5Jg=="}
    data = b"123456789"
    if algorithm.startswith("SHA"):
        value = base64.b64encode(hashlib.new(algorithm.lower(), data).digest()).decode()
    else:
        value = values[algorithm]
    member = f"Checksum{algorithm}"
    assert s3.put_object(Bucket="bucket", Key="k", Body=data, **{member: value})[member] == value
    attributes = s3.get_object_attributes(
        Bucket="bucket", Key="k", ObjectAttributes=["Checksum", "ETag", "ObjectSize", "StorageClass"]
    )
    assert attributes["Checksum"][member] == value
    assert (attributes["ObjectSize"], attributes["StorageClass"]) == (9, "STANDARD")
    with refused("BadDigest"):
        s3.put_object(Bucket="bucket", Key="k", Body=data + b"0", **{member: value})
    with refused("InvalidRequest"):
        s3.put_object(Bucket="bucket", Key="k", Body=data, **{member: "AAA"})


def test_parts_of_an_object_can_be_read(s3: Any) -> None:
    data = os.urandom(200_000)
    s3.put_object(Bucket="bucket", Key="k", Body=data)
    for header, part, shown in (
        ("bytes=0-0", data[:1], "bytes 0-0/200000"),
        ("bytes=100000-", data[100_000:], "bytes 100000-199999/200000"),
        ("bytes=-5", data[-5:], "bytes 199995-199999/200000"),
        ("bytes=5-999999999", data[5:], "bytes 5-199999/200000"),
    ):
        got = s3.get_object(Bucket="bucket", Key="k", Range=header)
        assert got["Body"].read() == part
        assert got["ContentRange"] == shown
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    for header in ("bytes=200000-", "bytes=-0"):
        with refused("InvalidRange"):
            s3.get_object(Bucket="bucket", Key="k", Range=header)
    for header in ("bytes=5-2", "nonsense", "bytes=0-1,3-4"):
        assert len(s3.get_object(Bucket="bucket", Key="k", Range=header)["Body"].read()) == 200_000
    got = s3.get_object(Bucket="bucket", Key="k", ResponseContentType="a/b", ResponseCacheControl="no-cache")
    assert (got["ContentType"], got["CacheControl"]) == ("a/b", "no-cache")
    got["Body"].close()


def test_conditions_hold_or_not(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    head = s3.head_object(Bucket="bucket", Key="k")
    etag, modified = head["ETag"], head["LastModified"]
    s3.get_object(Bucket="bucket", Key="k", IfMatch=etag, IfModifiedSince="2001-01-01")
    for given in ({"IfMatch": '"no"'}, {"IfUnmodifiedSince": "2001-01-01"}):
        with refused("PreconditionFailed"):
            s3.get_object(Bucket="bucket", Key="k", **given)
    for given in ({"IfNoneMatch": etag}, {"IfModifiedSince": modified}):
        with refused("304"):
            s3.get_object(Bucket="bucket", Key="k", **given)
        with refused("304"):
            s3.head_object(Bucket="bucket", Key="k", **given)
    with refused("PreconditionFailed"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"y", IfNoneMatch="*")
    s3.put_object(Bucket="bucket", Key="k", Body=b"y", IfMatch=etag)
    with refused("PreconditionFailed"):
        s3.delete_object(Bucket="bucket", Key="k", IfMatch=etag)
    with refused("NoSuchKey"):
        s3.put_object(Bucket="bucket", Key="none", Body=b"y", IfMatch=etag)


def test_what_is_missing_or_wrong_gets_s3s_words(s3: Any) -> None:
    with refused("NoSuchKey"):
        s3.get_object(Bucket="bucket", Key="none")
    with refused("404"):
        s3.head_object(Bucket="bucket", Key="none")
    with refused("NoSuchBucket"):
        s3.get_object(Bucket="nowhere", Key="none")
    with refused("NoSuchBucket"):
        s3.put_object(Bucket="nowhere", Key="none", Body=b"x" * MIB)
    with refused("KeyTooLongError"):
        s3.put_object(Bucket="bucket", Key="k" * 1025, Body=b"")
    with refused("MetadataTooLarge"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"", Metadata={"a": "b" * 2048})
    with refused("InvalidDigest"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"", ContentMD5="x")
    with refused("BadDigest"):
        s3.put_object(
            Bucket="bucket",
            Key="k",
            Body=b"x",
            ContentMD5=base64.b64encode(hashlib.md5(b"y").digest()).decode(),
        )
    with refused("NoSuchVersion"):
        s3.get_object(Bucket="bucket", Key="k", VersionId="abc")
    with refused("NoSuchUpload"):
        s3.upload_part(Bucket="bucket", Key="k", UploadId="abc", PartNumber=1, Body=b"x")
    with refused("InvalidArgument"):
        s3.list_objects_v2(Bucket="bucket", ContinuationToken="abc")
    with refused("InvalidTag"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"", Tagging="a=1&a=2")
    assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


def test_keys_are_only_names(s3: Any) -> None:
    keys = ["../x", "a//b", "/lead", "a/../b", "ü/😀", "a b+c%2F", "a&<b>'\"", "x" * 1024]
    for key in keys:
        s3.put_object(Bucket="bucket", Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == key.encode()
    listed = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert listed == sorted(keys, key=str.encode)


def test_deleting_many_says_what_became_of_each(s3: Any) -> None:
    for key in ("a", "b", "c"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"")
    objects = [
        {"Key": "a"},
        {"Key": "b", "VersionId": "null"},
        {"Key": "none"},
        {"Key": "c", "VersionId": "x"},
    ]
    answer = s3.delete_objects(Bucket="bucket", Delete={"Objects": objects})
    assert [one["Key"] for one in answer["Deleted"]] == ["a", "b", "none"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("c", "NoSuchVersion")]
    answer = s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "c"}], "Quiet": True})
    assert "Deleted" not in answer
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket")


def test_copies_take_along_what_they_should(s3: Any) -> None:
    s3.put_object(
        Bucket="bucket", Key="ü a", Body=b"x" * 20_000, Metadata={"m": "1"}, Tagging="t=1", ContentType="a/b"
    )
    answer = s3.copy_object(Bucket="bucket", Key="b", CopySource={"Bucket": "bucket", "Key": "ü a"})
    assert answer["CopyObjectResult"]["ETag"] == s3.head_object(Bucket="bucket", Key="ü a")["ETag"]
    got = s3.get_object(Bucket="bucket", Key="b")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"], got["TagCount"]) == (
        b"x" * 20_000,
        {"m": "1"},
        "a/b",
        1,
    )
    s3.copy_object(
        Bucket="bucket", Key="c", CopySource="bucket/b", MetadataDirective="REPLACE", Metadata={"n": "2"},
        TaggingDirective="REPLACE", Tagging="u=2", ChecksumAlgorithm="SHA256",
    )  # fmt: skip
    head = s3.head_object(Bucket="bucket", Key="c", ChecksumMode="ENABLED")
    assert (head["Metadata"], head["ContentType"]) == ({"n": "2"}, "binary/octet-stream")
    assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"x" * 20_000).digest()).decode()
    with refused("InvalidRequest"):
        s3.copy_object(Bucket="bucket", Key="b", CopySource="bucket/b")
    s3.copy_object(
        Bucket="bucket", Key="b", CopySource="bucket/b", MetadataDirective="REPLACE", Metadata={"o": "3"}
    )
    assert s3.head_object(Bucket="bucket", Key="b")["Metadata"] == {"o": "3"}
    with refused("PreconditionFailed"):
        s3.copy_object(Bucket="bucket", Key="d", CopySource="bucket/b", CopySourceIfMatch="no")
    with refused("NoSuchKey"):
        s3.copy_object(Bucket="bucket", Key="d", CopySource="bucket/none")


def test_tags_of_an_object_change_without_it(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    s3.put_object_tagging(Bucket="bucket", Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]
    s3.delete_object_tagging(Bucket="bucket", Key="k")
    assert s3.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == []


# ---- listing ------------------------------------------------------------------------------------------------


def test_both_listings_page_through_everything(s3: Any) -> None:
    keys = [f"a/{number:02d}" for number in range(10)] + ["b c", "d/e", "d/f", "z+"]
    for key in keys:
        s3.put_object(Bucket="bucket", Key=key, Body=b"1")
    for operation in ("list_objects_v2", "list_objects", "list_object_versions"):
        paginator = s3.get_paginator(operation)
        pages = list(paginator.paginate(Bucket="bucket", PaginationConfig={"PageSize": 3}))
        member = "Versions" if operation == "list_object_versions" else "Contents"
        assert [one["Key"] for page in pages for one in page[member]] == keys
        pages = list(paginator.paginate(Bucket="bucket", Delimiter="/", PaginationConfig={"PageSize": 1}))
        assert [one["Key"] for page in pages for one in page.get(member, [])] == ["b c", "z+"]
        assert [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])] == ["a/", "d/"]
    page = s3.list_objects_v2(Bucket="bucket", StartAfter="a/09", MaxKeys=1, FetchOwner=True)
    assert (page["Contents"][0]["Key"], page["IsTruncated"], page["KeyCount"]) == ("b c", True, 1)
    assert page["Contents"][0]["Owner"]["ID"]
    assert s3.list_objects_v2(Bucket="bucket", MaxKeys=0)["IsTruncated"] is False


# ---- multipart ----------------------------------------------------------------------------------------------


def test_the_sdks_managed_transfers_work(s3: Any, tmp_path: Path) -> None:
    data = os.urandom(9 * MIB + 123)
    config = TransferConfig(multipart_threshold=MIB, multipart_chunksize=MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(data), "bucket", "big", Config=config)
    # boto3 raises the part size to the 5 MiB of AWS.
    assert s3.head_object(Bucket="bucket", Key="big")["ETag"].endswith('-2"')
    s3.download_file("bucket", "big", str(tmp_path / "got"), Config=config)
    assert (tmp_path / "got").read_bytes() == data
    got = s3.get_object(Bucket="bucket", Key="big", PartNumber=2)
    assert (got["Body"].read(), got["PartsCount"]) == (data[5 * MIB :], 2)
    s3.copy({"Bucket": "bucket", "Key": "big"}, "bucket", "copied", Config=config)
    assert s3.get_object(Bucket="bucket", Key="copied")["Body"].read() == data


def test_an_upload_by_hand(s3: Any) -> None:
    data = os.urandom(70_000), os.urandom(70_000), b"end"
    upload = s3.create_multipart_upload(
        Bucket="bucket", Key="k", ChecksumAlgorithm="CRC64NVME", Metadata={"m": "1"}, ContentType="a/b"
    )["UploadId"]
    parts = [
        s3.upload_part(Bucket="bucket", Key="k", UploadId=upload, PartNumber=n, Body=piece, ChecksumAlgorithm="CRC64NVME",
            ChecksumCRC64NVME=crc64(piece))
        for n, piece in enumerate(data, 1)
    ]  # fmt: skip
    listed = s3.list_parts(Bucket="bucket", Key="k", UploadId=upload, MaxParts=2)
    assert [one["Size"] for one in listed["Parts"]] == [70_000, 70_000]
    assert (listed["IsTruncated"], listed["NextPartNumberMarker"]) == (True, 2)
    assert [one["UploadId"] for one in s3.list_multipart_uploads(Bucket="bucket")["Uploads"]] == [upload]
    claimed = [
        {"PartNumber": n, "ETag": part["ETag"], "ChecksumCRC64NVME": part["ChecksumCRC64NVME"]}
        for n, part in enumerate(parts, 1)
    ]
    with refused("InvalidPartOrder"):
        s3.complete_multipart_upload(
            Bucket="bucket", Key="k", UploadId=upload, MultipartUpload={"Parts": claimed[::-1]}
        )
    with refused("BadDigest"):
        s3.complete_multipart_upload(
            Bucket="bucket", Key="k", UploadId=upload, MultipartUpload={"Parts": claimed},
            ChecksumCRC64NVME=crc64(b"other"),
        )  # fmt: skip
    done = s3.complete_multipart_upload(
        Bucket="bucket", Key="k", UploadId=upload, MultipartUpload={"Parts": claimed}
    )
    assert (done["ChecksumCRC64NVME"], done["ChecksumType"]) == (crc64(b"".join(data)), "FULL_OBJECT")
    got = s3.get_object(Bucket="bucket", Key="k")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"".join(data), {"m": "1"}, "a/b")
    attributes = s3.get_object_attributes(Bucket="bucket", Key="k", ObjectAttributes=["ObjectParts"])
    assert [part["Size"] for part in attributes["ObjectParts"]["Parts"]] == [70_000, 70_000, 3]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="bucket")


def crc64(data: bytes) -> str:
    from sagesmith.store._crc import CRC64NVME

    return base64.b64encode(CRC64NVME(data).to_bytes(8, "big")).decode()


# ---- other ways in ------------------------------------------------------------------------------------------


def test_presigned_addresses_work_without_a_client(s3: Any, running: Running) -> None:
    client = running.client("s3", signature_version="s3v4")
    url = client.generate_presigned_url("put_object", {"Bucket": "bucket", "Key": "a/b ü"}, ExpiresIn=60)
    urllib.request.urlopen(urllib.request.Request(url, b"hello", method="PUT")).close()
    url = client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "a/b ü"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url[:-1])
    assert error.value.code == 403
    error.value.close()


def test_the_bucket_may_stand_in_the_host_name(
    running: Running, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    # Most systems resolve all of .localhost, but not those without systemd or nss-myhostname.
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *given: resolve("127.0.0.1", *given))
    url = f"http://localhost:{running.port}"
    client = running.client("s3", endpoint_url=url, s3={"addressing_style": "virtual"})
    client.put_object(Bucket="bucket", Key="a/b", Body=b"x" * 100)
    assert client.get_object(Bucket="bucket", Key="a/b")["Body"].read() == b"x" * 100
    assert [one["Key"] for one in client.list_objects_v2(Bucket="bucket")["Contents"]] == ["a/b"]


def test_a_client_that_leaves_changes_nothing(s3: Any, running: Running, store: ObjectStore) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"old")
    client = running.client("s3", signature_version="s3v4")
    url = client.generate_presigned_url("put_object", {"Bucket": "bucket", "Key": "k"})
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    connection.putrequest("PUT", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", str(MIB))
    connection.endheaders(b"x" * 100_000)
    connection.close()
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"old"


def test_an_agent_is_told_the_file(s3: Any, running: Running) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"x" * MIB)
    url = running.client("s3", signature_version="s3v4").generate_presigned_url(
        "head_object", {"Bucket": "bucket", "Key": "k"}
    )
    request = urllib.request.Request(url, method="HEAD", headers={"x-sagesmith-link": "1"})
    with urllib.request.urlopen(request) as answer:
        assert Path(answer.headers["x-sagesmith-path"]).read_bytes() == b"x" * MIB
    assert KEY.access_key_id in url


# ---- bodies that are not what they should be ----------------------------------------------------------------


def put_raw(running: Running, body: bytes, sha256: str, headers: dict[str, str]) -> tuple[int, str]:
    """PUT bucket/k as given, signed; return the status and the answer."""
    url = f"{running.url}/bucket/k"
    signed = sign("PUT", url, headers, sha256, KEY, "us-east-1", "s3", time.time())
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    connection.request("PUT", "/bucket/k", body, signed)
    answer = connection.getresponse()
    result = answer.status, answer.read().decode()
    connection.close()
    return result


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_body_that_is_not_the_signed_one_is_refused(s3: Any, running: Running, size: int) -> None:
    status, answer = put_raw(running, b"x" * size, hashlib.sha256(b"other").hexdigest(), {})
    assert (status, "<Code>XAmzContentSHA256Mismatch</Code>" in answer) == (400, True)
    with refused("404"):
        s3.head_object(Bucket="bucket", Key="k")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", ""),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", "BadDigest"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:what\r\n\r\n", "InvalidRequest"),
        (b"5\r\nhel\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", "Incomplete|InvalidChunk|InvalidRequest"),
        (b"zz\r\nhello\r\n0\r\n\r\n", "Incomplete|InvalidChunk|InvalidRequest"),
        (b"5\r\nhello\r\n", "Incomplete|InvalidChunk|InvalidRequest"),
    ],
)
def test_chunks_and_their_trailer_are_checked(s3: Any, running: Running, body: bytes, code: str) -> None:
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Decoded-Content-Length": "5",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    status, answer = put_raw(running, body, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", headers)
    if not code:
        assert status == 200
        got = s3.get_object(Bucket="bucket", Key="k", ChecksumMode="ENABLED")
        assert (got["Body"].read(), got["ChecksumCRC32"]) == (b"hello", "NhCmhg==")
        assert "ContentEncoding" not in got
    else:
        assert status == 400, answer
        assert re.search(f"<Code>({code})", answer), answer
        with refused("404"):
            s3.head_object(Bucket="bucket", Key="k")
