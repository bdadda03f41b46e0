"""One request to a predictor in every form it takes, and the answer in every form it gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats import csv, recordio
from sagesmith_algorithms.formats.protobuf import parse_record
from sagesmith_toolkit.server import Predictor, Request, Response

CSV, JSON = "text/csv", "application/json"
JSON_LINES, RECORDIO = "application/jsonlines", "application/x-recordio-protobuf"
F4 = (CSV, JSON, JSON_LINES, RECORDIO)


def ask(predictor: Predictor, content_type: str, accept: str, body: bytes) -> Response:
    """Return the answer to one request."""
    (response,) = predictor.predict([Request("/invocations", content_type, accept, "", body)])
    return response


def bodies(rows: npt.NDArray[Any]) -> dict[str, bytes]:
    """Return *rows* in each of the four forms."""
    instances = [{"features": row} for row in rows.astype(float).tolist()]
    return {
        CSV: csv.encode(rows.astype(float)),
        JSON: json.dumps({"instances": instances}).encode(),
        JSON_LINES: "\n".join(map(json.dumps, instances)).encode(),
        RECORDIO: recordio.encode(rows.astype(np.float32)),
    }


def answers(response: Response, key: str = "predictions") -> list[dict[str, Any]]:
    """Return a JSON, JSON Lines or RecordIO response as one dictionary for each row."""
    assert response.status == 200, response.body
    if response.content_type == JSON:
        document = json.loads(response.body)
        found: list[dict[str, Any]] = document[key] if isinstance(document, dict) else document
        return found
    if response.content_type == JSON_LINES:
        return [json.loads(line) for line in response.body.splitlines()]
    rows, body = [], response.body
    while body:
        length = int.from_bytes(body[4:8], "little")
        label = parse_record(body, 8, 8 + length).label
        rows.append({name: t.values.tolist() for name, t in label.items()})
        body = body[8 + length + -length % 4 :]
    return rows


def check_every_form(
    predictor: Predictor, rows: npt.NDArray[Any], expected: Sequence[dict[str, Any]], key: str = "predictions"
) -> None:
    """Assert that *rows* get the answer *expected* in every form of question and answer."""
    for content_type, body in bodies(rows).items():
        for accept in F4:
            response = ask(predictor, content_type, accept, body)
            assert response.content_type == accept
            if accept == CSV:
                found = [[float(c) for c in line.split(",")] for line in response.body.decode().splitlines()]
                flat = [list(np.hstack([np.ravel(v) for v in one.values()])) for one in expected]
                np.testing.assert_allclose(found, flat, rtol=1e-4, atol=1e-5)
                continue
            given = answers(response, key)
            assert [list(one) for one in given] == [list(one) for one in expected]
            for one, other in zip(given, expected, strict=True):
                for name, value in other.items():
                    np.testing.assert_allclose(np.ravel(one[name]), np.ravel(value), rtol=1e-4, atol=1e-5)
