"""Real boto3 clients of each protocol against small handlers."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EventStreamError

from sagesmith.aws import Api, Call, FileSlice, operation
from sagesmith.aws._protocols import Request
from sagesmith.errors import AwsError, access_denied
from sagesmith.signing import Credentials, sign

from .conftest import KEY, KEYS, TEMPORARY, Running, allow_all

Serve = Callable[..., Running]


class Jobs:
    service = "sagemaker"

    def __init__(self) -> None:
        self.seen: list[tuple[Call, Mapping[str, Any]]] = []

    @operation("DescribeTrainingJob", inline=True)
    def describe(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.seen.append((call, request))
        return {"TrainingJobName": request["TrainingJobName"], "CreationTime": 1700000000.25, "Nothing": None}

    @operation("CreateTrainingJob")
    def create(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.seen.append((call, request))
        return {"TrainingJobArn": call.arn(f"training-job/{request['TrainingJobName']}")}

    @operation("StopTrainingJob")
    async def stop(self, call: Call, request: Mapping[str, Any]) -> None:
        raise AwsError("ResourceInUse", "It is busy. Wait.")

    @operation("DeleteModel")
    def broken(self, call: Call, request: Mapping[str, Any]) -> None:
        raise ZeroDivisionError("secret detail")


def test_json(serve: Serve) -> None:
    jobs = Jobs()
    client = serve(jobs).client("sagemaker")
    answer = client.describe_training_job(TrainingJobName="one")
    assert answer["TrainingJobName"] == "one"
    assert answer["CreationTime"] == datetime.datetime.fromtimestamp(1700000000.25, datetime.UTC)
    assert answer["ResponseMetadata"]["RequestId"] == jobs.seen[0][0].request_id
    call = jobs.seen[0][0]
    assert (call.region, call.caller.user_id, call.service) == ("us-east-1", "AIDAEXAMPLE", "sagemaker")
    assert call.headers["x-amz-target"] == "SageMaker.DescribeTrainingJob"


def test_a_handler_in_a_thread_and_one_that_is_awaited(serve: Serve) -> None:
    jobs = Jobs()
    client = serve(jobs).client("sagemaker", TEMPORARY)
    answer = client.create_training_job(
        TrainingJobName="two",
        RoleArn="arn:aws:iam::123456789012:role/r",
        OutputDataConfig={"S3OutputPath": "s3://b/p"},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        AlgorithmSpecification={"TrainingInputMode": "File", "TrainingImage": "i"},
    )
    assert answer["TrainingJobArn"] == "arn:aws:sagemaker:us-east-1:123456789012:training-job/two"
    with pytest.raises(client.exceptions.ResourceInUse, match="It is busy"):
        client.stop_training_job(TrainingJobName="two")


class Threads:
    """Answers with the name of the thread that asks."""

    service = "sagemaker"

    @operation("DescribeModel", inline=True)
    def describe(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"ModelName": threading.current_thread().name}

    @operation("ListModels", inline=lambda request: "NameContains" not in request)
    def list(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request.get("NameContains") == "refused":
            raise AwsError("ValidationException", "Not this one.")
        return {"Models": [], "NextToken": threading.current_thread().name}


@pytest.mark.parametrize("inline_reads", [True, False])
def test_what_is_inline_runs_on_the_loop_where_reads_are_local(serve: Serve, inline_reads: bool) -> None:
    client = serve(Threads(), inline_reads=inline_reads).client("sagemaker")
    names = [
        client.describe_model(ModelName="m")["ModelName"],
        client.list_models()["NextToken"],
        client.list_models(NameContains="x")["NextToken"],
    ]
    assert [name.startswith("handler") for name in names] == [not inline_reads, not inline_reads, True]
    with pytest.raises(client.exceptions.ClientError, match="Not this one"):
        client.list_models(NameContains="refused")
    with pytest.raises(client.exceptions.ClientError, match="validation error"):
        client.list_models(MaxResults=1, NameContains="*")


def test_validation_gathers_all_faults(serve: Serve) -> None:
    client = serve(Jobs()).client("sagemaker", parameter_validation=False)
    with pytest.raises(ClientError) as caught:
        client.create_training_job(TrainingJobName="")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("4 validation errors detected: ")
    assert "Value null at 'roleArn' failed to satisfy constraint: Member must not be null" in error["Message"]
    assert (
        "Value '' at 'trainingJobName' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1" in error["Message"]
    )


def test_a_fault_of_ours_tells_no_details(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve(Jobs()).client("sagemaker")
    with pytest.raises(ClientError) as caught:
        client.delete_model(ModelName="m")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert caught.value.response["Error"]["Code"] == "InternalFailure"
    assert "secret" not in str(caught.value.response)
    assert "ZeroDivisionError: secret detail" in caplog.text


def test_what_is_missing_says_so(serve: Serve) -> None:
    client = serve(Jobs()).client("sagemaker")
    with pytest.raises(ClientError, match="does not implement sagemaker:ListModels yet") as caught:
        client.list_models()
    assert caught.value.response["Error"]["Code"] == "NotImplementedException"


class Identity:
    service = "sts"

    @operation("GetCallerIdentity", inline=True)
    def identity(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"Account": call.account, "Arn": call.caller.arn, "UserId": call.caller.user_id}

    @operation("AssumeRole")
    def assume(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "Credentials": {
                "AccessKeyId": "ASIAXXXXXXXXXXXXXXXX",
                "SecretAccessKey": "a<b&c",
                "SessionToken": request["Tags"][0]["Key"],
                "Expiration": 1700000000.0,
            }
        }

    @operation("AssumeRoleWithWebIdentity")
    def web(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"Audience": request["WebIdentityToken"], "SubjectFromWebIdentityToken": call.caller.user_id}


def test_query(serve: Serve) -> None:
    client = serve(Identity()).client("sts")
    assert client.get_caller_identity()["Account"] == "123456789012"
    answer = client.assume_role(
        RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="me", Tags=[{"Key": "k", "Value": "v"}]
    )
    assert answer["Credentials"]["SecretAccessKey"] == "a<b&c"
    assert answer["Credentials"]["SessionToken"] == "k"
    assert answer["Credentials"]["Expiration"] == datetime.datetime.fromtimestamp(1700000000, datetime.UTC)
    with pytest.raises(ClientError, match="roleSessionName") as caught:
        client.assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="not valid")
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_an_operation_that_needs_no_signature(serve: Serve) -> None:
    client = serve(Identity()).client("sts")
    answer = client.assume_role_with_web_identity(
        RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="me", WebIdentityToken="t" * 8
    )
    assert answer["SubjectFromWebIdentityToken"] == "anonymous"


class Objects:
    service = "s3"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trailers: Mapping[str, str] = {}
        self.requests: list[Mapping[str, Any]] = []

    @operation("PutObject")
    def put(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        body = request["Body"]
        self.requests.append(request)
        with (self.folder / "object").open("wb") as file:
            while data := body.read(100_000):
                file.write(data)
        self.trailers = body.trailers
        return {"ETag": '"abc"'}

    @operation("GetObject")
    def get(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        path = self.folder / "object"
        if request["Key"] == "none":
            raise AwsError("NoSuchKey", "The specified key does not exist.", members={"Key": "none"})
        size = path.stat().st_size
        return {
            "Body": FileSlice(str(path), 0, size),
            "ContentLength": size,
            "Metadata": {"a": "1"},
            "LastModified": 1700000000.0,
        }

    @operation("HeadObject", inline=True)
    def head(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["Key"] == "none":
            raise AwsError("NoSuchKey", "The specified key does not exist.", status=404)
        return {"ContentLength": 12345678, "ETag": '"e"'}

    @operation("ListObjectsV2")
    def list(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.requests.append(request)
        return {
            "Name": request["Bucket"],
            "Prefix": request.get("Prefix", ""),
            "Contents": [{"Key": "a b&<c>", "Size": 3, "LastModified": 1700000000.5}],
            "IsTruncated": False,
        }

    @operation("GetBucketLocation")
    def location(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"LocationConstraint": "eu-west-1"}

    @operation("CreateBucket")
    def create(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.requests.append(request)
        return {"Location": f"/{request['Bucket']}"}


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_s3_objects(serve: Serve, tmp_path: Path, size: int) -> None:
    objects = Objects(tmp_path)
    client = serve(objects).client("s3")
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    client.put_object(Bucket="bucket", Key="a/b c+é", Body=io.BytesIO(data), Metadata={"m": "v"})
    assert objects.requests[0]["Key"] == "a/b c+é"
    assert objects.requests[0]["Metadata"] == {"m": "v"}
    answer = client.get_object(Bucket="bucket", Key="k")
    assert answer["Body"].read() == data
    assert answer["Metadata"] == {"a": "1"}
    assert answer["ContentLength"] == size


def test_s3_answers(serve: Serve, tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    running = serve(objects)
    client = running.client("s3")
    assert client.head_object(Bucket="bucket", Key="k")["ContentLength"] == 12345678
    with pytest.raises(ClientError) as caught:
        client.head_object(Bucket="bucket", Key="none")
    assert caught.value.response["Error"]["Code"] == "404"
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket="bucket", Key="none")
    page = client.list_objects_v2(Bucket="bucket", Prefix="x y")
    assert page["Contents"][0]["Key"] == "a b&<c>"
    assert objects.requests[-1]["Prefix"] == "x y"
    assert client.get_bucket_location(Bucket="bucket")["LocationConstraint"] == "eu-west-1"
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert objects.requests[-1]["CreateBucketConfiguration"] == {"LocationConstraint": "eu-west-1"}


class Metrics:
    service = "cloudwatch"

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    @operation("PutMetricData")
    def put(self, call: Call, request: Mapping[str, Any]) -> None:
        self.seen.append({**request, "encoding": call.headers.get("content-encoding")})

    @operation("GetMetricStatistics")
    def statistics(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.seen.append(request)
        return {"Label": "l", "Datapoints": [{"Timestamp": 1700000000.0, "Average": 1.5}]}


@pytest.mark.parametrize("protocol", ["query", "json", "smithy-rpc-v2-cbor"])
def test_cloudwatch_in_three_protocols(serve: Serve, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.model import ServiceModel

    monkeypatch.setattr(ServiceModel, "resolved_protocol", protocol)
    metrics = Metrics()
    client = serve(metrics).client(
        "cloudwatch", request_min_compression_size_bytes=100, parameter_validation=False
    )
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    data = [{"MetricName": f"m{n}", "Value": 1.25, "Timestamp": moment} for n in range(20)]
    client.put_metric_data(Namespace="n", MetricData=data)
    assert metrics.seen[0]["MetricData"][19] == {
        "MetricName": "m19",
        "Value": 1.25,
        "Timestamp": moment.timestamp(),
    }
    assert metrics.seen[0]["encoding"] == "gzip"
    answer = client.get_metric_statistics(
        Namespace="n", MetricName="m", StartTime=moment, EndTime=moment, Period=60, Statistics=["Average"]
    )
    assert answer["Datapoints"][0]["Average"] == 1.5
    assert answer["Datapoints"][0]["Timestamp"] == datetime.datetime.fromtimestamp(1700000000, datetime.UTC)
    assert metrics.seen[1]["StartTime"] == moment.timestamp()
    with pytest.raises(ClientError, match="'period'") as caught:
        client.get_metric_statistics(
            Namespace="n", MetricName="m", StartTime=moment, EndTime=moment, Period=0
        )
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"


class Features:
    service = "sagemaker-featurestore-runtime"

    @operation("PutRecord")
    def put(self, call: Call, request: Mapping[str, Any]) -> None:
        assert request["Record"][0]["FeatureName"] == "f"

    @operation("GetRecord")
    def get(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"Record": [{"FeatureName": name, "ValueAsString": "1"} for name in request["FeatureNames"]]}


def test_rest_json_told_apart_by_path(serve: Serve) -> None:
    client = serve(Features(), Jobs()).client("sagemaker-featurestore-runtime")
    client.put_record(FeatureGroupName="g", Record=[{"FeatureName": "f", "ValueAsString": "1"}])
    answer = client.get_record(
        FeatureGroupName="g", RecordIdentifierValueAsString="1", FeatureNames=["a", "b"]
    )
    assert [one["FeatureName"] for one in answer["Record"]] == ["a", "b"]
    with pytest.raises(ClientError, match="does not implement"):
        client.delete_record(FeatureGroupName="g", RecordIdentifierValueAsString="1", EventTime="t")


def test_coverage(serve: Serve) -> None:
    coverage = serve(Jobs()).api.coverage()["sagemaker"]
    assert coverage["DescribeTrainingJob"] == "real"
    assert coverage["ListModels"] == "missing"


class Runtime:
    service = "sagemaker-runtime"

    @operation("InvokeEndpointWithResponseStream")
    def stream(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        def events() -> Iterator[Mapping[str, Any]]:
            yield {"PayloadPart": {"Bytes": request["Body"][:2]}}
            yield {"PayloadPart": {"Bytes": request["Body"][2:]}}
            if request["EndpointName"] == "breaks":
                raise AwsError("ModelStreamError", "It broke.", members={"ErrorCode": "X"})

        return {"Body": events(), "InvokedProductionVariant": "v"}

    @operation("InvokeEndpoint")
    def invoke(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["Accept"] == "none":
            members = {"OriginalStatusCode": 503, "OriginalMessage": "m", "LogStreamArn": "arn"}
            raise AwsError("ModelError", "Received server error (503).", status=424, members=members)
        return {"Body": request["Body"], "ContentType": request["Accept"]}


def test_the_runtime_with_streams_of_events(serve: Serve) -> None:
    client = serve(Runtime()).client("sagemaker-runtime")
    answer = client.invoke_endpoint(EndpointName="e", Body=b"\0\xff", Accept="text/csv")
    assert (answer["Body"].read(), answer["ContentType"]) == (b"\0\xff", "text/csv")
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint(EndpointName="e", Body=b"", Accept="none")
    assert caught.value.response["OriginalStatusCode"] == 503
    answer = client.invoke_endpoint_with_response_stream(EndpointName="e", Body=b"abcd")
    assert [event["PayloadPart"]["Bytes"] for event in answer["Body"]] == [b"ab", b"cd"]
    assert answer["InvokedProductionVariant"] == "v"
    answer = client.invoke_endpoint_with_response_stream(EndpointName="breaks", Body=b"abcd")
    with pytest.raises(EventStreamError, match="It broke"):
        list(answer["Body"])
    answer["Body"].close()


class Echo:
    service = "sagemaker"

    @operation("DescribeModel", inline=True)
    def describe(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**request, "CreationTime": 0}


def test_members_of_newer_clients_are_kept(serve: Serve) -> None:
    api = serve(Echo()).api
    entry = api._router.find(
        "sagemaker", b"POST", b"/", {b"x-amz-target": b"SageMaker.DescribeModel"}, b""
    ).entry
    body = b'{"ModelName":"m","Novelty":{"Deep":[1,null,{"When":1.5}]},"CreationTime":0}'
    value = api.read(entry, Request(body))
    assert value["Novelty"] == {"Deep": [1, None, {"When": 1.5}]}
    answer = entry.protocol.write(entry.operation, {**value, "CreationTime": 0}, "id")
    assert json.loads(cast("bytes", answer.body))["Novelty"]["Deep"][2] == {"When": 1.5}


def test_handlers_that_no_model_knows_are_found() -> None:
    class Wrong:
        service = "sagemaker"

        @operation("DescribeNothing")
        def describe(self, call: Call, request: Mapping[str, Any]) -> None:
            return None

    options: dict[str, Any] = {
        "keys": KEYS.get,
        "authorize": allow_all,
        "account_id": "1",
        "default_region": "r",
    }
    with pytest.raises(ValueError, match="sagemaker:DescribeNothing"):
        Api([Wrong()], **options).check()
    with pytest.raises(ValueError, match="two handlers"):
        Api([Echo(), Echo()], **options)


def test_who_is_not_allowed_learns_it_in_the_protocols_words(serve: Serve, tmp_path: Path) -> None:
    def deny(call: Call, request: Mapping[str, Any]) -> None:
        raise access_denied(f"{call.caller.arn} may not {call.service}:{call.operation}")

    running = serve(Jobs(), Identity(), Objects(tmp_path), authorize=deny)
    for service, name, arguments, code in (
        ("sagemaker", "describe_training_job", {"TrainingJobName": "j"}, "AccessDeniedException"),
        ("sts", "get_caller_identity", {}, "AccessDenied"),
        ("s3", "put_object", {"Bucket": "bucket", "Key": "k", "Body": b"x"}, "AccessDenied"),
    ):
        with pytest.raises(ClientError, match="user/admin may not") as caught:
            getattr(running.client(service), name)(**arguments)
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_hostile_gzip(serve: Serve) -> None:
    running = serve(Metrics())
    for body in (b"not gzip", gzip.compress(bytes(10**8)), gzip.compress(b"{}")[:-4]):
        url = running.url + "/"
        headers = {
            "Content-Encoding": "gzip",
            "X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData",
            "Content-Type": "application/x-amz-json-1.0",
        }
        digest = hashlib.sha256(body).hexdigest()
        key = Credentials(KEY.access_key_id, KEY.secret_access_key)
        signed = sign("POST", url, headers, digest, key, "us-east-1", "monitoring", time.time())
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        connection.request("POST", "/", body, signed)
        response = connection.getresponse()
        assert response.status == 400
        assert json.loads(response.read())["__type"] == "SerializationException"
        connection.close()
