"""A user's model as a predictor: own functions, defaults, formats, faults."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sagesmith_toolkit.server import Request
from sagesmith_toolkit.serving import Handlers, ModelError, UserModel
from sagesmith_toolkit.serving._main import find_code, load_module
from sagesmith_toolkit.serving.codecs import accepted, decode, encode


class Sums:
    """A model: the sum of each row."""

    def predict(self, data: Any) -> Any:
        return np.asarray(data).sum(axis=1)


def a_model(**functions: Callable[..., Any]) -> UserModel:
    module = ModuleType("inference")
    module.__dict__.update({"model_fn": lambda model_dir: Sums(), **functions})
    return UserModel("/opt/ml/model", module, Handlers(), {})


def ask(model: UserModel, body: bytes, content_type: str, accept: str = "") -> tuple[int, str, bytes]:
    status, kind, answer, _ = model.predict([Request("/invocations", content_type, accept, "", body)])[0]
    return status, kind, answer


def npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"[[1, 2], [3, 4.5]]"),
        ("text/csv; charset=utf-8", b"1,2\n3,4.5\n"),
        ("application/x-npy", npy([[1, 2], [3, 4.5]])),
    ],
)
def test_the_defaults_read_and_write_every_format(content_type: str, body: bytes) -> None:
    model = a_model()
    assert ask(model, body, content_type) == (200, "application/json", b"[3.0, 7.5]")
    assert ask(model, body, content_type, "text/csv") == (200, "text/csv", b"3.0\n7.5\n")
    status, kind, answer = ask(model, body, content_type, "application/x-npy, application/json")
    assert (status, kind) == (200, "application/x-npy")
    assert np.load(io.BytesIO(answer)).tolist() == [3, 7.5]


def test_one_row_may_come_without_its_outer_brackets() -> None:
    assert ask(a_model(), b"1,2", "text/csv") == (200, "application/json", b"[3.0]")


def test_the_users_functions_take_the_place_of_the_defaults() -> None:
    model = a_model(
        input_fn=lambda body, content_type: (body, content_type),
        predict_fn=lambda data, model: {"data": data, "model": type(model).__name__},
        output_fn=lambda prediction, accept: (json.dumps(prediction), "text/own"),
    )
    answer = json.dumps({"data": ["x", "text/plain"], "model": "Sums"}).encode()
    assert ask(model, b"x", "text/plain") == (200, "text/own", answer)


def test_transform_fn_stands_for_the_three() -> None:
    model = a_model(transform_fn=lambda model, body, content_type, accept: (body[::-1], accept))
    assert ask(model, b"abc", "application/octet-stream", "a/b") == (200, "a/b", b"cba")
    with pytest.raises(ModelError, match="Cannot use transform_fn implementation with input_fn"):
        a_model(transform_fn=lambda *_: b"", input_fn=lambda *_: b"")


def test_functions_may_take_the_context() -> None:
    def predict_fn(data: Any, model: Any, context: Any) -> list[str]:
        return [context.system_properties["model_dir"]]

    assert ask(a_model(predict_fn=predict_fn), b"[1]", "application/json")[2] == b'["/opt/ml/model"]'


@pytest.mark.parametrize(
    ("functions", "parts", "kind"),
    [
        ({"predict_fn": lambda data, model: iter(["a", b"b"])}, [b"a", b"b"], "application/json"),
        ({"predict_fn": lambda data, model: iter([{"n": 1}, [2]])}, [b'{"n": 1}\n', b"[2]\n"], "application/json"),
        ({"output_fn": lambda data, accept: (iter("ab"), "text/own")}, [b"a", b"b"], "text/own"),
        ({"transform_fn": lambda *_: iter([b"x"])}, [b"x"], "application/json"),
    ],
)  # fmt: skip
def test_iterators_are_parts_for_who_wants_them(
    functions: dict[str, Callable[..., Any]], parts: list[bytes], kind: str
) -> None:
    model = a_model(**functions)
    status, found, body, _ = model.stream(Request("/invocations", "application/json", "", "", b"[[1]]"))
    assert (status, found, list(body)) == (200, kind, parts)
    assert ask(model, b"[[1]]", "application/json") == (200, kind, b"".join(parts))


def test_a_generator_that_fails_is_a_fault(capfd: pytest.CaptureFixture[str]) -> None:
    def predict_fn(data: Any, model: Any) -> Any:
        yield "a"
        raise KeyError("price")

    model = a_model(predict_fn=predict_fn)
    assert ask(model, b"[[1]]", "application/json") == (500, "text/plain", b"KeyError: 'price'")
    assert "Traceback" in capfd.readouterr().err


def test_faults_are_told_apart(capfd: pytest.CaptureFixture[str]) -> None:
    def fails(data: Any, model: Any) -> None:
        raise KeyError("price")

    assert ask(a_model(), b"x", "image/png")[0] == 415
    assert ask(a_model(), b"[[1]]", "application/json", "image/png")[0] == 406
    status, _, answer = ask(a_model(predict_fn=fails), b"[[1]]", "application/json")
    assert (status, answer) == (500, b"KeyError: 'price'")
    assert "Traceback" in capfd.readouterr().err
    assert ask(a_model(), b"[[1]", "application/json")[0] == 500


def test_without_model_fn_it_says_what_is_missing() -> None:
    with pytest.raises(ModelError, match="Please provide a model_fn implementation"):
        UserModel("/opt/ml/model", None, Handlers(), {})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("model/code", "inference.py")),
        ({"SAGEMAKER_PROGRAM": "serve.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}, ("model/code", "serve.py")),
        ({"SAGEMAKER_PROGRAM": "train.py", "SAGEMAKER_SUBMIT_DIRECTORY": "s3://b/k.tar.gz"}, ("code", "train.py")),
        ({"SAGEMAKER_PROGRAM": "serve.py"}, ("model/code", "serve.py")),
    ],
)  # fmt: skip
def test_where_the_code_is(tmp_path: Path, environ: dict[str, str], expected: tuple[str, str]) -> None:
    for name in ("model/code/inference.py", "model/code/serve.py", "code/train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder, program = find_code(tmp_path, environ)
    assert (str(folder.relative_to(tmp_path)), program) == expected


def test_the_module_finds_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["kept"])
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside_it.py").write_text("VALUE = 1\n")
    (tmp_path / "my_inference.py").write_text("import beside_it\nVALUE = beside_it.VALUE\n")
    module = load_module(tmp_path, "my_inference.py")
    assert module is not None
    assert module.VALUE == 1


def test_the_first_type_that_is_accepted_counts() -> None:
    assert accepted("", "a/b") == accepted("*/*", "a/b") == accepted("application/*", "a/b") == "a/b"
    assert accepted("text/csv, */*", "a/b") == "text/csv"


def test_what_is_written_can_be_read() -> None:
    array = np.arange(6).reshape(2, 3)
    for kind in ("application/json", "text/csv", "application/x-npy"):
        assert decode(encode(array, kind), kind).tolist() == array.tolist()
    assert (
        encode({"a": array[0], "b": [array[1]]}, "application/json") == b'{"a": [0, 1, 2], "b": [[3, 4, 5]]}'
    )


@pytest.mark.parametrize(
    "body",
    [
        b"1,2\n3,4.5\n", b"1,2,3", b"1\r\n2\r\n3\r\n", b"-1.5e3", b"1,2\n\n3,4\n", b"0.1,+.2,7.", b"1, 2\n3,4", b"1,,2", b"1,nan",
        b"1,2 # more", b"1-2,3",
    ],
)  # fmt: skip
def test_csv_is_read_as_numpy_reads_it(body: bytes) -> None:
    array, expected = decode(body, "text/csv"), np.genfromtxt(io.StringIO(body.decode()), delimiter=",")
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(array, expected)


def test_rows_of_different_lengths_are_no_csv() -> None:
    with pytest.raises(ValueError, match="as many numbers in each line"):
        decode(b"1,2\n3\n", "text/csv")


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, 1e20, np.nan, -np.inf], np.float32), np.array([[0.1, 2], [3, 1e-7]]), np.array([1, -2]), np.array(3.5),
        np.array([[True], [False]]), np.array(["a", "b"]), np.array([]), np.array([0.1], np.float16), np.zeros((0, 2)),
    ],
)  # fmt: skip
def test_csv_is_written_as_numpy_writes_it(array: Any) -> None:
    sink = io.StringIO()
    np.savetxt(sink, np.atleast_1d(array), delimiter=",", fmt="%s")
    assert encode(array, "text/csv") == sink.getvalue().encode()
