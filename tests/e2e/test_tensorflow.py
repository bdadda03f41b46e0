"""TensorFlow: SavedModels behind the forms of TensorFlow Serving, and scripts beside parameter servers."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.e2e.flow import Flow
from tests.e2e.script_mode import archive, deploy, environment, framework_image, script
from tests.e2e.served import Served

TAG = "2.12.0-cpu-py310"
TRAINING = framework_image("tensorflow-training", TAG)
INFERENCE = framework_image("tensorflow-inference", "2.12.0-cpu")

MODELS = """
import sys
import tensorflow as tf

class Half(tf.Module):
    def __init__(self, plus):
        self.half, self.plus = tf.Variable(0.5), tf.Variable(plus)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x):
        return {"y": x * self.half + self.plus}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a"), tf.TensorSpec([None], tf.string, name="word")])
    def two(self, a, word):
        return {"sum": tf.reduce_sum(a, 1), "twice": tf.strings.join([word, word]), "raw_bytes": word}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        scores = tf.stack([x, 1 - x], 1)
        return {"scores": scores, "classes": tf.tile([["yes", "no"]], [tf.shape(x)[0], 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        return {"outputs": self.half * x}

for version, plus in ((1, 2.0), (2, 3.0)):
    model = Half(plus)
    signatures = {"serving_default": model.predict, "two": model.two, "classify": model.classify, "regress": model.regress}
    tf.saved_model.save(model, f"{sys.argv[1]}/half/{version}", signatures=signatures)
"""
HANDLERS = """
import json
import requests

def handler(data, context):
    text = data.read().decode()
    if text == "fail":
        raise KeyError("no such column")
    answer = requests.post(context.rest_uri, data=json.dumps({"instances": [float(text)]}))
    answer.raise_for_status()
    return json.dumps({"asked": context.custom_attributes, "got": answer.json()["predictions"]}), context.accept_header
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("tensorflow-training", TAG)


@pytest.fixture(scope="module")
def flow(served: Served, python: Path) -> Flow:
    flow = Flow(served, "tensorflow")
    flow.upload({"data/points.csv": b"1,2\n3,4\n"})
    return flow


@pytest.fixture(scope="module")
def half(flow: Flow, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two endpoints of models made elsewhere, one of them with an inference.py: the name of the first."""
    folder = tmp_path_factory.mktemp("saved-model")
    subprocess.run([python, "-c", MODELS, folder], check=True, capture_output=True)
    (folder / "inference.py").write_text(HANDLERS)
    for name, members in (("half", ("half",)), ("handled", ("half", "inference.py"))):
        packed = folder / f"{name}.tar.gz"
        with tarfile.open(packed, "w:gz") as tar:
            for member in members:
                tar.add(folder / member, f"code/{member}" if member.endswith(".py") else member)
        flow.upload({f"{name}/model.tar.gz": packed.read_bytes()})
        deploy(flow, name, INFERENCE, f"s3://{flow.bucket}/{name}/model.tar.gz", {})
    yield "half"
    for name in ("half", "handled"):
        flow.delete(name)


def ask(flow: Flow, name: str, body: Any, content_type: str = "application/json", **more: str) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    answer = flow.runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Body=text, **more)
    return json.loads(answer["Body"].read())


@pytest.mark.parametrize(
    ("body", "content_type", "attributes", "expected"),
    [
        ({"instances": [1.0, 2.0]}, "application/json", "", {"predictions": [3.5, 4.0]}),
        ({"instances": [{"x": 1.0}, {"x": 2.0}]}, "application/json", "", {"predictions": [3.5, 4.0]}),
        ({"inputs": [1.0, 2.0]}, "application/json", "", {"outputs": [3.5, 4.0]}),
        ({"inputs": {"x": [4]}}, "application/json", "", {"outputs": [5.0]}),
        ("1.0, 2.0", "application/json", "", {"predictions": [3.5, 4.0]}),
        ('{"x": 1.0}\n{"x": 2.0}\n', "application/jsonlines", "", {"predictions": [3.5, 4.0]}),
        ("1.0\n2.0\n", "text/csv", "", {"predictions": [3.5, 4.0]}),
        ({"instances": [1.0]}, "application/json", "tfs-model-name=half,tfs-model-version=1", {"predictions": [2.5]}),
        (
            {
                "signature_name": "two",
                "instances": [{"a": [1, 2], "word": "ha"}, {"a": [3, 4], "word": {"b64": "aG8="}}],
            },
            "application/json",
            "",
            {
                "predictions": [
                    {"sum": 3.0, "twice": "haha", "raw_bytes": {"b64": "aGE="}},
                    {"sum": 7.0, "twice": "hoho", "raw_bytes": {"b64": "aG8="}},
                ]
            },
        ),
        (
            {"signature_name": "classify", "examples": [{"x": 0.25}], "context": {"unused": 1}},
            "application/json",
            "tfs-method=classify",
            {"results": [[["yes", 0.25], ["no", 0.75]]]},
        ),
        (
            {"signature_name": "regress", "examples": [{"x": 3.0}, {"x": 5.0}]},
            "application/json",
            "tfs-method=regress",
            {"results": [1.5, 2.5]},
        ),
    ],
)  # fmt: skip
def test_every_form_of_request(
    flow: Flow, half: str, body: Any, content_type: str, attributes: str, expected: Any
) -> None:
    more = {"CustomAttributes": attributes} if attributes else {}
    assert ask(flow, half, body, content_type, **more) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "attributes", "status", "words"),
    [
        ("{", "application/json", "", 400, "JSON Parse error"),
        ({"instances": []}, "application/json", "", 400, "at least one entry"),
        ({"instances": ["a"]}, "application/json", "", 400, "error"),
        ({"instances": [[1.0, 2.0]]}, "application/json", "", 400, "must have the shape"),
        (
            {"instances": [1], "signature_name": "no"},
            "application/json",
            "",
            400,
            "not found in signature def",
        ),
        ({"instances": [1]}, "application/json", "tfs-model-name=no", 404, "Servable not found"),
        (
            {"instances": [1]},
            "application/json",
            "tfs-method=guess",
            400,
            "none of predict, classify, regress",
        ),
        ("x", "image/png", "", 415, "Unsupported Media Type: image/png"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    flow: Flow, half: str, body: Any, content_type: str, attributes: str, status: int, words: str
) -> None:
    more = {"CustomAttributes": attributes} if attributes else {}
    with pytest.raises(ClientError) as caught:
        ask(flow, half, body, content_type, **more)
    response: Any = caught.value.response
    assert response["Error"]["Code"] == "ModelError"
    assert response["OriginalStatusCode"] == status
    assert words in response["OriginalMessage"]


@pytest.mark.usefixtures("half")
def test_a_handler_asks_the_model_itself(flow: Flow) -> None:
    answer = ask(flow, "handled", "4", "text/plain", CustomAttributes="tfs-model-version=1")
    assert answer == {"asked": "tfs-model-version=1", "got": [4.0]}
    with pytest.raises(ClientError, match="no such column"):
        ask(flow, "handled", "fail", "text/plain")


SERVERS = """
import json, os
import tensorflow as tf

config = json.loads(os.environ["TF_CONFIG"])
assert config["environment"] == "cloud", config
assert len(config["cluster"]["ps"]) == 2 and len(config["cluster"]["master"]) == 1, config
task = config["task"]
# A variable on the second host's server, which both scripts add to.
v1 = tf.compat.v1
v1.disable_eager_execution()
with v1.device("/job:ps/task:1"):
    total = v1.get_variable("total", shape=[], initializer=v1.zeros_initializer())
    arrived = v1.get_variable("arrived", shape=[], initializer=v1.zeros_initializer())
target = "grpc://" + config["cluster"]["ps"][1]
only_servers = v1.ConfigProto(device_filters=["/job:ps"])  # nothing else in the cluster runs a server
with v1.Session(target, config=only_servers) as session:
    if task["type"] == "master":
        session.run([total.initializer, arrived.initializer])
    else:
        while session.run(v1.report_uninitialized_variables()).size:
            pass
    session.run(total.assign_add(10.0 if task["type"] == "master" else 1.0))
    session.run(arrived.assign_add(1.0))
    while session.run(arrived) < 2:
        pass
    print(os.environ["SM_CURRENT_HOST"], task["type"], task["index"], "total", session.run(total))
open(os.path.join(os.environ["SM_MODEL_DIR"], os.environ["SM_CURRENT_HOST"]), "w").close()
"""


def test_parameter_servers_run_beside_the_scripts_of_two_hosts(flow: Flow) -> None:
    hyperparameters = script(flow, "ps", {"train.py": SERVERS}, sagemaker_parameter_server_enabled=True)
    job = flow.train(
        "ps", image=TRAINING, hyperparameters=hyperparameters, channels={"train": "data/"}, instances=2
    )
    lines = flow.log_lines("/aws/sagemaker/TrainingJobs", "ps/")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-30:])
    assert {"algo-1 master 0 total 11.0", "algo-2 worker 0 total 11.0"} <= set(lines)
    assert set(flow.artifact(job)) == {"algo-1", "algo-2"}


def test_a_model_without_a_version_folder_says_what_is_missing(flow: Flow) -> None:
    flow.upload({"flat/model.tar.gz": archive({"saved_model.pb": b""})})
    with pytest.raises(WaiterError):
        deploy(flow, "flat", INFERENCE, f"s3://{flow.bucket}/flat/model.tar.gz", {})
    lines = flow.log_lines("/aws/sagemaker/Endpoints/flat", "AllTraffic")
    flow.delete("flat")
    assert any("No SavedModel bundles found!" in line for line in lines), lines
