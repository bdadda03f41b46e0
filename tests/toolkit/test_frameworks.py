"""Requests and models of the deep learning frameworks, as far as that needs none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sagesmith_toolkit.serving.codecs import UnsupportedFormatError
from sagesmith_toolkit.serving.handlers import ModelError, handlers_of
from sagesmith_toolkit.serving.huggingface import task_of
from sagesmith_toolkit.serving.saved_model import RequestError, find_models
from sagesmith_toolkit.serving.tensorflow import to_tfs


@pytest.mark.parametrize(
    ("body", "content_type", "instances"),
    [
        ('{"x": 1}', "application/json", [{"x": 1}]),
        ("[1, 2]", "application/json", [[1, 2]]),
        ("[[1, 2], [3, 4]]", "application/json; charset=utf-8", [[1, 2], [3, 4]]),
        ('{"x": 1}\n{"x": 2}\n', "application/jsonlines", [{"x": 1}, {"x": 2}]),
        ('{"x": [1]} {"x": [2]}', "application/jsons", [{"x": [1]}, {"x": [2]}]),
        ("1,2.5\n-3e2,4\n", "text/csv", [[1, 2.5], [-300, 4]]),
        ('good film\n"bad, film"\n', "text/csv", ["good film", "bad, film"]),
        ("a,1\nb,007", "text/csv", [["a", 1], ["b", "007"]]),
        ("5", "", [5]),
    ],
)
def test_what_becomes_instances_for_tensorflow(body: str, content_type: str, instances: Any) -> None:
    assert json.loads(to_tfs(body.encode(), content_type)) == {"instances": instances}


def test_requests_of_tensorflow_servings_own_stay_as_they_are() -> None:
    body = b'{"signature_name": "s", "inputs": [1]}'
    assert to_tfs(body, "application/json") is body
    with pytest.raises(RequestError, match="Unsupported Media Type: image/png") as caught:
        to_tfs(body, "image/png")
    assert caught.value.status == 415
    with pytest.raises(RequestError, match="not UTF-8"):
        to_tfs(b"\xff", "text/csv")


def test_saved_models_are_found_by_name_and_version(tmp_path: Path) -> None:
    for folder in ("1", "export/Servo/1700", "other/1", "other/2", "other/2/assets/no"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "saved_model.pb").touch()
    (tmp_path / "other/2/assets/no/saved_model.pb").unlink()
    found = find_models(tmp_path)
    assert {name: sorted(versions) for name, versions in found.items()} == {
        tmp_path.name: [1],
        "Servo": [1700],
        "other": [1, 2],
    }
    with pytest.raises(ModelError, match="No SavedModel bundles found!"):
        find_models(tmp_path / "other" / "1")


def test_the_files_of_an_mxnet_module_are_named_where_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "model-symbol.json").touch()
    with pytest.raises(ModelError, match=r"missing file model-0000\.params"):
        handlers_of("mxnet").model_fn(str(tmp_path))


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("GPT2LMHeadModel", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("MyOwn", ""),
    ],
)
def test_the_task_follows_from_the_architecture(tmp_path: Path, architecture: str, task: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert task_of(tmp_path) == task


def test_requests_to_a_pipeline() -> None:
    read = handlers_of("huggingface").input_fn
    assert read('{"inputs": "a", "parameters": {"top_k": 1}}', "application/json") == {
        "inputs": "a",
        "parameters": {"top_k": 1},
    }
    assert read("inputs\na\nb\n", "text/csv") == {"inputs": ["a", "b"]}
    assert read("question,context\nwho,me\n", "text/csv") == {
        "inputs": [{"question": "who", "context": "me"}]
    }
    assert read(b"RIFF", "audio/wav") == {"inputs": b"RIFF"}
    with pytest.raises(ValueError, match="must name the columns"):
        read("a,b\n1,2\n", "text/csv")
    with pytest.raises(UnsupportedFormatError) as caught:
        read("x", "application/x-parquet")
    assert caught.value.status == 415


def test_a_model_of_hugging_face_needs_a_task_and_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TASK", raising=False)
    monkeypatch.delenv("HF_MODEL_ID", raising=False)
    with pytest.raises(ModelError, match=r"no config\.json"):
        handlers_of("huggingface").model_fn(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="HF_TASK is not set"):
        handlers_of("huggingface").model_fn(str(tmp_path))
