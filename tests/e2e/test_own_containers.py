"""A container of the user's own: built and pushed with Docker, trained and served through boto3, and all that goes wrong."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from sagesmith.containers import Engine
from tests.containers.engine import BASE, needs_docker
from tests.e2e.flow import Flow
from tests.e2e.served import Served, wait_until
from tests.e2e.test_transform import output, transform

pytestmark = needs_docker
CHANNELS = {"train": "given"}
PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py")

TRAIN = """#!/usr/bin/env python3
import json, os, sys
sys.path.insert(0, "/opt/packages")
import boto3
what = json.load(open("/opt/ml/input/config/hyperparameters.json"))["what"]
if what == "fail":
    open("/opt/ml/output/failure", "w").write("no column named price")
    sys.exit(2)
s3 = boto3.client("s3")
print("I am", boto3.client("sts").get_caller_identity()["Arn"].split("/")[1])
s3.put_object(Bucket=what, Key="from-inside", Body=s3.get_object(Bucket=what, Key="given")["Body"].read() * 2)
open("/opt/ml/model/weights", "w").write("w")
"""

MANY = """#!/usr/bin/env python3
import http.server, json, os, urllib.parse
MODELS, ROOM = {}, 2
class Models(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/ping":
            return self.answer(200, {})
        if path == "/models":  # one on a page
            token = dict(urllib.parse.parse_qsl(query)).get("next_page_token", "0")
            names, at = list(MODELS), int(token)
            page = {"models": [{"modelName": name, "modelUrl": ""} for name in names[at : at + 1]]}
            return self.answer(200, {**page, **({"nextPageToken": str(at + 1)} if at + 1 < len(names) else {})})
        self.answer(200 if path[8:] in MODELS else 404, {})
    def do_DELETE(self):
        print("unload", MODELS.pop(self.path[8:])[:1].decode(), flush=True)
        self.answer(200, {})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            what = json.loads(body)
            if what["model_name"] in MODELS:
                return self.answer(409, {})
            if len(MODELS) == ROOM:
                return self.answer(507, {})
            with open(what["url"] + "/weights", "rb") as file:
                MODELS[what["model_name"]] = file.read()
            print("load", MODELS[what["model_name"]].decode(), flush=True)
            return self.answer(200, {})
        if body == b"die":
            os._exit(3)
        name = self.path.split("/")[2]
        self.answer(200, [MODELS[name].decode(), self.headers["X-Amzn-SageMaker-Target-Model"], body.decode()])
    def answer(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
assert os.environ["SAGEMAKER_MULTI_MODEL"] == "true"
http.server.ThreadingHTTPServer(("", 8080), Models).serve_forever()
"""

SERVE = """#!/usr/bin/env python3
import http.server, os, sys
class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"die":
            os._exit(3)
        if body.startswith(b"parts"):
            return self.parts(body)
        self.answer(open("/opt/ml/model/weights", "rb").read() + body)
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def parts(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in body.split():
            self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(word), word))
        self.wfile.write(b"0\\r\\n\\r\\n")
    def log_message(self, *_):
        pass
if os.environ.get("WHAT") == "deaf":
    sys.exit("this server does not want to")
if os.environ.get("WHAT") == "many":
    os.execv("/opt/program/many", ["/opt/program/many"])
http.server.ThreadingHTTPServer(("", 8080), Model).serve_forever()
"""


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    flow = Flow(served, "own-containers")
    flow.upload({"given": b"ab"})
    return flow


@pytest.fixture(scope="module")
def image(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image in the registry, and not in the engine any more."""
    folder = tmp_path_factory.mktemp("image")
    for name, text in (("train", TRAIN), ("serve", SERVE), ("many", MANY)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "packages").mkdir()
    for package in PACKAGES:
        source = Path(__import__(package.removesuffix(".py")).__file__ or "")
        if package.endswith(".py"):
            shutil.copy(source, folder / "packages")
        else:
            shutil.copytree(
                source.parent, folder / "packages" / package, ignore=_only_some_models, dirs_exist_ok=True
            )
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\nENV PATH=/opt/program:$PATH\nCOPY packages /opt/packages\nCOPY train serve many /opt/program/\n"
    )
    ecr = served.client("ecr")
    repository = ecr.create_repository(repositoryName="own")["repository"]
    token = ecr.get_authorization_token()["authorizationData"][0]
    user, password = base64.b64decode(token["authorizationToken"]).decode().split(":")
    uri = f"{repository['repositoryUri']}:v1"
    config = tmp_path_factory.mktemp("config")
    docker(config, "login", "-u", user, "--password-stdin", token["proxyEndpoint"], input=password.encode())
    docker(config, "build", "--tag", uri, str(folder))
    docker(config, "push", uri)
    docker(config, "image", "rm", uri)
    yield f"{repository['registryId']}.dkr.ecr.us-east-1.amazonaws.com/own:v1"
    for name in (uri, uri.replace("/own", "/us-east-1/own")):
        subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)


def _only_some_models(folder: str, names: list[str]) -> list[str]:
    wanted = ("s3", "sts") if folder.endswith("botocore/data") else None
    return [name for name in names if wanted and name not in wanted and "." not in name]


def docker(config: Path, *arguments: str, **options: Any) -> None:
    environment = {**os.environ, "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *arguments], env=environment, capture_output=True, check=False, timeout=300, **options
    )
    assert done.returncode == 0, done.stderr.decode()


def containers(served: Served) -> list[str]:
    filters = json.dumps({"label": [f"sagesmith.folder={served.home / 'instances'}"]})
    found = Engine().ask("GET", "/containers/json", {"all": "1", "filters": filters})
    return [container["Names"][0] for container in found]


def refusal(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_it_trains_with_its_roles_credentials_and_serves(flow: Flow, image: str) -> None:
    job = flow.train("own-trains", image=image, hyperparameters={"what": flow.bucket}, channels=CHANNELS)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert flow.s3.get_object(Bucket=flow.bucket, Key="from-inside")["Body"].read() == b"abab"
    assert flow.artifact(job) == {"weights": b"w"}
    assert flow.log_lines("/aws/sagemaker/TrainingJobs", "own-trains/") == ["I am SagesmithExecutionRole"]

    flow.deploy("own-serves", image=image, model_data=job["ModelArtifacts"]["S3ModelArtifacts"], instances=2)
    try:
        flow.upload({"rows/a": b"1\n2\n"})
        done = transform(
            flow, "own-transforms", "rows/", ModelName="own-serves", SplitType="Line", AssembleWith="Line",
            BatchStrategy="SingleRecord",
        )  # fmt: skip
        assert done["TransformJobStatus"] == "Completed", done["FailureReason"]
        assert output(flow, "own-transforms", "a") == "w1\nw2\n"
        for body in (b"1", b"x" * 2_000_000):
            answer = flow.runtime.invoke_endpoint(EndpointName="own-serves", Body=body)
            assert answer["Body"].read() == b"w" + body
        stream = flow.runtime.invoke_endpoint_with_response_stream(
            EndpointName="own-serves", Body=b"parts a b"
        )
        assert stream["ContentType"] == "text/plain"
        assert b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"]) == b"partsab"
        assert len(containers(flow.served)) == 2
    finally:
        flow.delete("own-serves")
    assert containers(flow.served) == []


def test_many_models_in_one_container(flow: Flow, image: str) -> None:
    """Room for two of three: the least recently used leaves, and what the container forgot is loaded again."""
    flow.upload({f"many/{key}.tar.gz": archive(weights=key[-1:].encode()) for key in ("a", "b", "sub/c")})
    flow.upload({"many/bad.tar.gz": archive(nothing=b"")})
    flow.sagemaker.create_model(
        ModelName="own-many",
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={
            "Image": image, "Mode": "MultiModel", "ModelDataUrl": f"s3://{flow.bucket}/many/",
            "Environment": {"WHAT": "many"},
        },
    )  # fmt: skip
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="own-many", ProductionVariants=[variant("own-many")]
    )
    flow.sagemaker.create_endpoint(EndpointName="own-many", EndpointConfigName="own-many")
    try:
        flow.wait_for_endpoint("own-many")

        def ask(model: str, body: bytes = b"1") -> Any:
            answer = flow.runtime.invoke_endpoint(EndpointName="own-many", TargetModel=model, Body=body)
            return json.loads(answer["Body"].read())

        for key in ("a", "b", "a", "sub/c", "a", "b"):
            assert ask(f"{key}.tar.gz") == [key[-1:], f"{key}.tar.gz", "1"]
        lines = flow.log_lines("/aws/sagemaker/Endpoints/own-many", "AllTraffic/")
        assert [line for line in lines if line.split()[0] in ("load", "unload")] == [
            "load a", "load b", "unload b", "load c", "unload c", "load b",
        ]  # fmt: skip
        for model, code, words in (
            ("none.tar.gz", "ValidationError", "Failed to download model data"),
            ("bad.tar.gz", "ModelError", "POST /models"),
        ):
            with pytest.raises(ClientError, match=words) as caught:
                ask(model)
            assert caught.value.response["Error"]["Code"] == code
        stream = flow.runtime.invoke_endpoint_with_response_stream
        with pytest.raises(flow.runtime.exceptions.ClientError, match="TargetModel must name one"):
            stream(EndpointName="own-many", Body=b"1")

        with pytest.raises(ClientError, match="connection to the container was lost"):
            ask("a.tar.gz", b"die")

        def answers(key: str) -> bool:
            try:
                return bool(ask(f"{key}.tar.gz")[0] == key[-1:])
            except ClientError:
                return False

        wait_until(
            lambda: answers("a"), timeout_s=60, what="the container is there again, and the model in it"
        )
        flow.served.kill()
        flow.served.up()
        wait_until(lambda: answers("b"), timeout_s=60, what="the instance is found again")
        assert answers("sub/c"), "in the place of a, which this server was never asked for"
    finally:
        flow.delete("own-many")
    assert containers(flow.served) == []


def variant(model: str) -> Any:
    return {"VariantName": "AllTraffic", "ModelName": model, "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large"}  # fmt: skip


def test_a_server_that_dies_is_started_again(flow: Flow, image: str) -> None:
    flow.upload({"dies/model.tar.gz": archive(weights=b"v")})
    flow.deploy("own-dies", image=image, model_data=f"s3://{flow.bucket}/dies/model.tar.gz")
    try:
        with pytest.raises(ClientError) as caught:
            flow.runtime.invoke_endpoint(EndpointName="own-dies", Body=b"die")
        code, message = refusal(caught)
        assert code == "ModelError"
        assert "The connection to the container was lost before it answered." in message

        def answers() -> bool:
            try:
                body = flow.runtime.invoke_endpoint(EndpointName="own-dies", Body=b"1")["Body"].read()
            except ClientError:
                return False
            return bool(body == b"v1")

        wait_until(answers, timeout_s=60, what="the model server is there again")
        status = flow.sagemaker.describe_endpoint(EndpointName="own-dies")["EndpointStatus"]
        assert status == "InService"
    finally:
        flow.delete("own-dies")
    assert containers(flow.served) == []


def test_copies_of_a_component(flow: Flow, image: str) -> None:
    """On one instance: with their limit of memory, in parts, scaled, and started again when their server dies."""
    flow.upload({"copies/model.tar.gz": archive(weights=b"c")})
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="own-shelf",
        ExecutionRoleArn=flow.served.role,
        ProductionVariants=[{"VariantName": "all", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}],
    )
    flow.sagemaker.create_endpoint(EndpointName="own-shelf", EndpointConfigName="own-shelf")
    flow.wait_for_endpoint("own-shelf")
    needs = {"NumberOfCpuCoresRequired": 0.5, "MinMemoryRequiredInMb": 256, "MaxMemoryRequiredInMb": 512}
    flow.sagemaker.create_inference_component(
        InferenceComponentName="own",
        EndpointName="own-shelf",
        VariantName="all",
        Specification={
            "Container": {"Image": image, "ArtifactUrl": f"s3://{flow.bucket}/copies/model.tar.gz"},
            "ComputeResourceRequirements": needs,
        },
        RuntimeConfig={"CopyCount": 2},
    )

    def describe() -> Any:
        return flow.sagemaker.describe_inference_component(InferenceComponentName="own")

    def ask(body: bytes) -> bytes:
        answer = flow.runtime.invoke_endpoint(
            EndpointName="own-shelf", InferenceComponentName="own", Body=body
        )
        found: bytes = answer["Body"].read()
        return found

    def other_answers() -> bool:
        """Whether the copy that lives answers; the one that died may still be asked in the first moment."""
        try:
            return ask(b"2") == b"c2"
        except ClientError:
            return False

    def up(copies: int) -> bool:
        found = describe()
        assert found["InferenceComponentStatus"] != "Failed", found["FailureReason"]
        present = found["RuntimeConfig"]["CurrentCopyCount"]
        return (found["InferenceComponentStatus"], present) == ("InService", copies) and (
            len(containers(flow.served)) == copies
        )

    try:
        wait_until(lambda: up(2), timeout_s=60, what="two copies")
        limits = [
            Engine().ask("GET", f"/containers{name}/json")["HostConfig"]["Memory"]
            for name in containers(flow.served)
        ]
        assert limits == [512 << 20] * 2
        assert ask(b"1") == b"c1"
        stream = flow.runtime.invoke_endpoint_with_response_stream(
            EndpointName="own-shelf", InferenceComponentName="own", Body=b"parts a b"
        )
        assert b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"]) == b"partsab"
        with pytest.raises(ClientError, match="connection to the container was lost"):
            ask(b"die")
        wait_until(other_answers, timeout_s=10, what="an answer by the other copy")
        wait_until(lambda: up(2), timeout_s=60, what="two copies again")
        flow.sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="own", DesiredRuntimeConfig={"CopyCount": 1}
        )
        wait_until(lambda: up(1), timeout_s=60, what="one copy")
        assert ask(b"3") == b"c3"
    finally:
        flow.sagemaker.delete_inference_component(InferenceComponentName="own")
        wait_until(lambda: containers(flow.served) == [], timeout_s=60, what="no copy")
    wait_until(
        lambda: (
            not flow.sagemaker.list_inference_components(EndpointNameEquals="own-shelf")[
                "InferenceComponents"
            ]
        ),
        timeout_s=30,
        what="no component",
    )
    flow.sagemaker.delete_endpoint(EndpointName="own-shelf")


def test_a_server_that_never_answers_fails_the_endpoint(flow: Flow, image: str) -> None:
    flow.sagemaker.create_model(
        ModelName="own-deaf",
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={"Image": image, "Environment": {"WHAT": "deaf"}},
    )
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="own-deaf", ProductionVariants=[variant("own-deaf")]
    )
    flow.sagemaker.create_endpoint(EndpointName="own-deaf", EndpointConfigName="own-deaf")
    with pytest.raises(WaiterError):
        flow.wait_for_endpoint("own-deaf")
    reason = flow.sagemaker.describe_endpoint(EndpointName="own-deaf")["FailureReason"]
    assert reason.startswith(
        "The primary container for production variant AllTraffic did not pass the ping health check"
    )
    lines = flow.log_lines("/aws/sagemaker/Endpoints/own-deaf", "AllTraffic/")
    assert "this server does not want to" in lines
    flow.delete("own-deaf")
    assert containers(flow.served) == []


def test_why_a_container_failed_is_in_the_jobs_description(flow: Flow, image: str) -> None:
    job = flow.train("own-fails", image=image, hyperparameters={"what": "fail"}, channels=CHANNELS)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: no column named price, exit code: 2"


def test_an_image_of_the_engine_by_its_name_and_without_train(flow: Flow) -> None:
    job = flow.train("own-bare", image=BASE, hyperparameters={}, channels=CHANNELS)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "ClientError: the container could not be started: exec train failed"
    )
    algorithm = {
        "TrainingImage": f"{BASE}:latest",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python", "-c"],
        "ContainerArguments": ["import os; print(os.environ['TRAINING_JOB_NAME'])"],
    }
    job = flow.train(
        "own-entered", image="", hyperparameters={}, channels=CHANNELS, AlgorithmSpecification=algorithm
    )
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert flow.log_lines("/aws/sagemaker/TrainingJobs", "own-entered/") == ["own-entered"]


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/nowhere:v1",
            "Cannot find repository: nowhere in registry ID: 123456789012 Please check if your ECR repository exists",
        ),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/own:v2", "own:v2 not found."),
        ("no-such-image", "Requested image no-such-image not found."),
    ],
)
def test_an_image_that_does_not_exist_is_refused_at_once(flow: Flow, absent: str, message: str) -> None:
    with pytest.raises(ClientError) as caught:
        flow.train("own-absent", image=absent, hyperparameters={}, channels=CHANNELS)
    code, said = refusal(caught)
    assert code == "ValidationException"
    assert message in said
    with pytest.raises(ClientError) as caught:
        flow.sagemaker.create_model(
            ModelName="own-absent", ExecutionRoleArn=flow.served.role, PrimaryContainer={"Image": absent}
        )
    assert message in refusal(caught)[1]


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
