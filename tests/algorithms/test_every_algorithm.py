"""What every built-in algorithm must do: train from all it says it reads, answer all it says it answers, refuse the rest.

Jobs run in this process, since nothing of the process matters here; `jobs` starts real ones.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sagesmith_algorithms import CustomerError, HyperparameterError, algorithm, names
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import csv, recordio
from sagesmith_algorithms.formats.content_type import ContentType
from sagesmith_algorithms.hyperparameters import Number
from sagesmith_toolkit.environment import Channel, Environment
from sagesmith_toolkit.server import Predictor
from tests.algorithms import serving
from tests.algorithms.samples import SAMPLES, Fault

ALL = pytest.mark.parametrize("name", names())
NUMERIC = [name for name, sample in SAMPLES.items() if types.RECORDIO in sample.requests]
FAULTS = [(name, word) for name, sample in SAMPLES.items() for word in sample.faults]
Trained = Callable[[str], Predictor]
Channels = Mapping[str, tuple[str, Mapping[str, bytes]]]


def train(
    base: Path,
    name: str,
    channels: Channels,
    given: Mapping[str, str] | None = None,
    input_mode: str = "File",
) -> Path:
    """Run a job on *channels* (content type and files by channel), and return the folder of its model."""
    described = {}
    for channel, (content_type, files) in channels.items():
        folder = base / "input" / "data" / channel
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        described[channel] = Channel(channel, folder, content_type, input_mode)
    hyperparameters = {**SAMPLES[name].hyperparameters, **(given or {})}
    environment = Environment(base, hyperparameters, described)
    algorithm(name).train(environment)
    return environment.model_dir


def answers(predictor: Predictor, name: str, content_type: str = "") -> list[dict[str, Any]]:
    """Return what *predictor* answers to the sample's rows."""
    requests = SAMPLES[name].requests
    content_type = content_type or next(iter(requests))
    response = serving.ask(predictor, content_type, serving.JSON, requests[content_type])
    return serving.answers(response, algorithm(name).response_key)


def assert_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [list(one) for one in found] == [list(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        for column, value in other.items():
            if isinstance(np.ravel(value)[0], str):
                assert one[column] == value
                continue
            np.testing.assert_allclose(one[column], value, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The model server of each algorithm, trained from the first of its content types."""
    made: dict[str, Predictor] = {}

    def predictor(name: str) -> Predictor:
        if name not in made:
            content_type, content = next(iter(SAMPLES[name].train.items()))
            folder = train(tmp_path_factory.mktemp(name), name, {"train": (content_type, {"a": content})})
            made[name] = algorithm(name).load_predictor(folder, {})
        return made[name]

    return predictor


@ALL
def test_it_has_a_sample_of_all_it_declares(name: str) -> None:
    found = algorithm(name)
    (kind,) = (channel for channel in found.channels if channel.name == "train")
    assert {ContentType.parse(text).name for text in SAMPLES[name].train} == set(kind.content_types)
    assert set(SAMPLES[name].requests) == set(found.request_types)


@ALL
def test_every_content_type_makes_the_same_model(name: str, trained: Trained, tmp_path: Path) -> None:
    expected = answers(trained(name), name)
    assert len(expected) == 3
    for number, (content_type, content) in enumerate(SAMPLES[name].train.items()):
        folder = train(tmp_path / str(number), name, {"train": (content_type, {"a": content})})
        assert_alike(answers(algorithm(name).load_predictor(folder, {}), name), expected)


@pytest.mark.parametrize("name", NUMERIC)
def test_sparse_records_make_the_same_model_and_are_answered_alike(
    name: str, trained: Trained, tmp_path: Path
) -> None:
    sample, expected = SAMPLES[name], answers(trained(name), name)
    sparse = _sparse(sample.train[types.RECORDIO])
    folder = train(tmp_path, name, {"train": (types.RECORDIO, {"a": sparse})})
    assert_alike(answers(algorithm(name).load_predictor(folder, {}), name), expected)
    rows, _ = _rows(sample.requests[types.RECORDIO])
    keys = {"keys": list(range(rows.shape[1])), "shape": [rows.shape[1]]}
    instances = [{"data": {"features": {"values": row, **keys}}} for row in rows.astype(float).tolist()]
    forms = {
        types.RECORDIO: _sparse(sample.requests[types.RECORDIO]),
        types.JSON: json.dumps({"instances": instances}).encode(),
        types.JSON_LINES: "\n".join(map(json.dumps, instances)).encode(),
        f"{types.CSV};label_size=1": csv.encode(np.column_stack([np.full(len(rows), 7), rows])),
    }
    for content_type, body in forms.items():
        if content_type.partition(";")[0] in sample.requests:
            response = serving.ask(trained(name), content_type, serving.JSON, body)
            assert_alike(serving.answers(response, algorithm(name).response_key), expected)


def _rows(records: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    batch = recordio.decode(records)
    return batch.dense(), batch.labels


def _sparse(records: bytes) -> bytes:
    rows, labels = _rows(records)
    return recordio.encode(csr_matrix(rows), labels)


@ALL
def test_gzip_is_unpacked(name: str, trained: Trained, tmp_path: Path) -> None:
    content_type, content = next(iter(SAMPLES[name].train.items()))
    folder = train(tmp_path, name, {"train": (content_type, {"a.gz": gzip.compress(content)})})
    assert_alike(answers(algorithm(name).load_predictor(folder, {}), name), answers(trained(name), name))


@ALL
def test_pipes_make_the_same_model(name: str, trained: Trained, tmp_path: Path) -> None:
    """Each pass over the data reads the next pipe, as in Pipe mode; no pipe is there twice."""
    content_type, content = next(iter(SAMPLES[name].train.items()))
    data, over = tmp_path / "input" / "data", threading.Event()
    channels = ("train", *SAMPLES[name].judged)
    for channel in channels:
        (data / channel).mkdir(parents=True)

    def feed(channel: str) -> None:
        for epoch in range(1000):
            pipe = data / f"{channel}_{epoch}"
            os.mkfifo(pipe)
            with pipe.open("wb") as file:  # blocks until somebody reads
                if over.is_set():
                    return
                file.write(content)
            pipe.unlink()

    feeders = [threading.Thread(target=feed, args=(channel,), daemon=True) for channel in channels]
    for feeder in feeders:
        feeder.start()
    described = {one: Channel(one, data / one, content_type, "Pipe") for one in channels}
    hyperparameters = SAMPLES[name].hyperparameters
    environment = Environment(tmp_path, hyperparameters, described)
    for channel in channels:
        _wait_for(data / f"{channel}_0")
    algorithm(name).train(environment)
    over.set()
    assert_alike(
        answers(algorithm(name).load_predictor(environment.model_dir, {}), name), answers(trained(name), name)
    )


def _wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.001)


@ALL
def test_every_request_is_answered_in_every_form(name: str, trained: Trained) -> None:
    found, predictor, expected = algorithm(name), trained(name), answers(trained(name), name)
    assert [tuple(one) for one in expected] == [SAMPLES[name].columns] * 3
    for content_type, body in SAMPLES[name].requests.items():
        assert_alike(answers(predictor, name, content_type), expected)
        for accept in found.response_types:
            response = serving.ask(predictor, content_type, accept, body)
            assert (response.status, response.content_type) == (200, accept), response.body
            assert response.body


@ALL
def test_bad_requests_get_a_status_and_a_sentence(name: str, trained: Trained) -> None:
    predictor = trained(name)
    content_type, body = next(iter(SAMPLES[name].requests.items()))
    for expected, response in (
        (415, serving.ask(predictor, "image/png", "", body)),
        (406, serving.ask(predictor, content_type, "image/png", body)),
        (204, serving.ask(predictor, content_type, "", b"")),
        (400, serving.ask(predictor, content_type, "", b"\xff\x00{")),
    ):
        assert response.status == expected, response.body
        assert "Traceback" not in response.body.decode(errors="replace")
    assert serving.ask(predictor, content_type, "", body).status == 200


@ALL
def test_metrics_are_logged_as_their_definitions_say(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content_type, content = next(iter(SAMPLES[name].train.items()))
    channels = dict.fromkeys(("train", *SAMPLES[name].judged), (content_type, {"a": content}))
    train(tmp_path, name, channels)
    log = capsys.readouterr().out.replace("\t", "#011")
    found = [metric.name for metric in algorithm(name).metrics if re.search(metric.regex, log)]
    assert found or not algorithm(name).metrics, log


@pytest.mark.parametrize(("name", "word"), FAULTS, ids=[f"{name}-{word}" for name, word in FAULTS])
def test_bad_data_are_refused_with_file_and_record(name: str, word: str, tmp_path: Path) -> None:
    fault: Fault = SAMPLES[name].faults[word]
    channels = {"train": (fault.content_type, {"part-7": fault.content})}
    with pytest.raises(CustomerError, match=fault.says) as caught:
        train(tmp_path, name, channels, fault.hyperparameters)
    if word != "no label":
        assert "train/part-7" in str(caught.value)


@ALL
def test_channels_that_are_empty_unknown_or_of_another_type(name: str, tmp_path: Path) -> None:
    content_type, content = next(iter(SAMPLES[name].train.items()))
    good = (content_type, {"a": content})
    cases: list[tuple[Channels, str]] = [
            ({"train": (content_type, {})}, "no row in the channel 'train'; check its S3Uri"),
            ({"train": (content_type, {"a": b""})}, "no row in the channel 'train'; check its S3Uri"),
            ({"test": good} if "test" in SAMPLES[name].judged else {}, "'train' is required"),
            ({"train": good, "trains": good}, "'trains' is not known: expected train"),
            ({"train": good, "model": ("application/x-sagemaker-model", {"a": b"x"})}, "'model' .*expected train"),
            ({"train": ("image/png", {"a": b"x"})}, "has the content type 'image/png': expected"),
    ]  # fmt: skip
    for number, (channels, says) in enumerate(cases):
        with pytest.raises(CustomerError, match=says):
            train(tmp_path / str(number), name, channels)


@ALL
def test_hyperparameters_are_checked_all_at_once(name: str, tmp_path: Path) -> None:
    declared = algorithm(name).hyperparameters
    below = [
        one.name
        for one in declared.values()
        if isinstance(one, Number) and (one.low is not None or one.above is not None)
    ]
    assert below
    given = {**dict.fromkeys(below, "-1e30"), "no_such_thing": "1"}
    with pytest.raises(HyperparameterError) as caught:
        train(tmp_path, name, {}, given)
    assert all(f"'{one}'" in str(caught.value) for one in [*below, "no_such_thing"])


@ALL
def test_parameters_are_given_and_changed_as_scikit_learn_does(name: str) -> None:
    given: dict[str, Any] = {
        k: json.loads(v) if v.isdecimal() else v for k, v in SAMPLES[name].hyperparameters.items()
    }
    model = algorithm(name)(**given)
    assert model.get_params().items() >= given.items()
    assert model.set_params(**given) is model
    assert repr(model).startswith(f"{type(model).__name__}(")
