"""Hugging Face: a model that transformers saved is served by the pipeline of its task."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow
from tests.e2e.script_mode import archive, deploy, environment, framework_image
from tests.e2e.served import Served

TAG = "2.1.0-transformers4.37.0-cpu-py310-ubuntu22.04"
INFERENCE = framework_image("huggingface-pytorch-inference", TAG)

MODEL = """
import sys
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

words = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad film".split()
with open(sys.argv[1] + "/vocab.txt", "w") as file:
    file.write("\\n".join(words))
tokenizer = BertTokenizer(sys.argv[1] + "/vocab.txt")
config = BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                    intermediate_size=8, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
model = BertForSequenceClassification(config)
model.save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    return Flow(served, "huggingface")


@pytest.fixture(scope="module")
def endpoint(flow: Flow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python = environment("huggingface-pytorch-inference", TAG)
    folder: Path = tmp_path_factory.mktemp("bert")
    subprocess.run([python, "-c", MODEL, folder], check=True, capture_output=True)
    flow.upload(
        {"bert/model.tar.gz": archive({path.name: path.read_bytes() for path in sorted(folder.iterdir())})}
    )
    deploy(flow, "bert", INFERENCE, f"s3://{flow.bucket}/bert/model.tar.gz", {})
    yield "bert"
    flow.delete("bert")


def ask(flow: Flow, body: str, content_type: str = "application/json") -> Any:
    answer = flow.runtime.invoke_endpoint(EndpointName="bert", ContentType=content_type, Body=body)
    return json.loads(answer["Body"].read())


@pytest.mark.usefixtures("endpoint")
def test_a_classifier_that_was_saved_elsewhere_is_served_by_its_pipeline(flow: Flow) -> None:
    (one,) = ask(flow, json.dumps({"inputs": "good film"}))
    assert set(one) == {"label", "score"}
    assert one["label"] in ("yes", "no")
    assert 0.5 <= one["score"] <= 1
    both = ask(flow, json.dumps({"inputs": ["good film", "bad"], "parameters": {"top_k": 2}}))
    assert [{each["label"] for each in row} for row in both] == [{"yes", "no"}] * 2
    assert [sum(each["score"] for each in row) for row in both] == pytest.approx([1, 1])
    assert ask(flow, "good film", "text/plain") == [one]
    assert ask(flow, "inputs\ngood film\nbad\n", "text/csv")[0] == one


@pytest.mark.usefixtures("endpoint")
def test_requests_that_a_pipeline_cannot_answer_are_the_clients_fault(flow: Flow) -> None:
    for body, content_type, status, words in (
        ("{}", "application/json", 400, 'the key "inputs"'),
        ("{", "application/json", 400, "Expecting property name"),
        ("x", "application/x-parquet", 415, "not supported"),
    ):
        with pytest.raises(ClientError, match=words) as caught:
            ask(flow, body, content_type)
        response: Any = caught.value.response
        assert response["OriginalStatusCode"] == status
