"""A transform job's `DataProcessing`: what of each record the model sees, and what of record and answer is kept.

CSV rows are handled as lists of texts, so that numbers stay as they were written; JSON documents and the lines of
JSON Lines as what they are. The records of a payload and of its answer belong together by their order.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sagesmith.instance._objects import DataError
from sagesmith.jsonpath import JsonPath, PathNotFoundError

__all__ = ["DataProcessing"]

_CSV: Final = "text/csv"
_JSON: Final = "application/json"
_JSON_LINES: Final = "application/jsonlines"
_ALIASES: Final = {
    "csv": _CSV,
    "json": _JSON,
    "jsonlines": _JSON_LINES,
    "application/x-jsonlines": _JSON_LINES,
    "application/jsonl": _JSON_LINES,
}
_INPUT: Final = "SageMakerInput"
_OUTPUT: Final = "SageMakerOutput"
_ID: Final = "SageMakerInferenceId"
_TIME: Final = "SageMakerInferenceTime"


class DataProcessing:
    """Filters and joins. Thread-safe.

    Args:
        input_type: the content type of the input.
        split: whether a payload holds records, one a line; else it is one JSON document, or all rows of an object.
        input_filter: the part of a record that the model gets.
        output_filter: the part that is kept of the answer, or of both joined.
        join: whether record and answer are joined.
        identify: whether each record of the output gets an id and the time.
    """

    def __init__(
        self,
        input_type: str,
        *,
        split: bool,
        input_filter: str = "$",
        output_filter: str = "$",
        join: bool = False,
        identify: bool = False,
    ) -> None:
        self._input_type = _kind(input_type)
        self._split = split
        self._input_filter = JsonPath(input_filter)
        self._output_filter = JsonPath(output_filter)
        self._join = join
        self._identify = identify
        self.filters = not self._input_filter.is_root
        self.changes_output = join or identify or not self._output_filter.is_root

    def request(self, payload: bytes) -> bytes:
        """Return what the model gets of *payload*.

        Raises:
            DataError: a record is not what the content type says, or has nothing where the filter leads.
        """
        if not self.filters:
            return payload
        read, write = self._codec(self._input_type, "ContentType")
        select = _selector(self._input_filter, self._input_type)
        return b"\n".join(
            write(_selected(select, read(record, number)))
            for number, record in enumerate(self._records(payload, self._input_type), 1)
        )

    def result(self, payload: bytes, answer: bytes, answer_type: str) -> bytes:
        """Return what is written for *payload* and the model's *answer*, ended by a line break.

        Raises:
            DataError: they do not belong together record by record, or have nothing where the filter leads.
        """
        if not self.changes_output:
            return answer
        kind = _kind(answer_type)
        read_answer, write = self._codec(kind, "Accept")
        answers = self._records(answer, kind)
        values = [read_answer(record, number) for number, record in enumerate(answers, 1)]
        if self._join:
            values = self._joined(payload, values, kind)
        select = _selector(self._output_filter, kind)
        kept = [_selected(select, value) for value in values]
        if self._identify:
            kept = [_identified(value, kind) for value in kept]
        return b"".join(write(value) + b"\n" for value in kept)

    def _joined(self, payload: bytes, answers: Sequence[Any], kind: str) -> list[Any]:
        if (kind == _CSV) != (self._input_type == _CSV):
            raise DataError(
                f"JoinSource Input needs answers of the input's kind: the input is {self._input_type or 'unknown'}, "
                f"the model answered {kind or 'something else'}. Set TransformOutput.Accept."
            )
        read, _ = self._codec(self._input_type, "ContentType")
        records = self._records(payload, self._input_type)
        if len(records) != len(answers):
            raise DataError(
                f"JoinSource Input: the model gave {len(answers)} records for {len(records)}. Let it answer with "
                "one record a line, or set BatchStrategy to SingleRecord."
            )
        inputs = [read(record, number) for number, record in enumerate(records, 1)]
        if kind == _CSV:
            return [[*row, *answer] for row, answer in zip(inputs, answers, strict=True)]
        return [
            {**given, _OUTPUT: answer} if isinstance(given, dict) else {_INPUT: given, _OUTPUT: answer}
            for given, answer in zip(inputs, answers, strict=True)
        ]

    def _records(self, payload: bytes, kind: str) -> list[bytes]:
        if kind == _JSON and not self._split:
            return [payload]
        records = [line for line in payload.split(b"\n") if line and line != b"\r"]
        if kind == _JSON and len(records) > 1 and not _is_document(records[0]):
            return [payload]  # one document over several lines
        return records

    def _codec(self, kind: str, member: str) -> tuple[Callable[[bytes, int], Any], Callable[[Any], bytes]]:
        if kind == _CSV:
            return _read_csv, _write_csv
        if kind in (_JSON, _JSON_LINES):
            return _read_json, _write_json
        raise DataError(
            f"DataProcessing needs text/csv, application/json or application/jsonlines, and {member} is "
            f"{kind or 'not given'}."
        )


def _kind(content_type: str) -> str:
    name = content_type.partition(";")[0].strip().lower()
    return _ALIASES.get(name, name)


def _selector(path: JsonPath, kind: str) -> Callable[[Any], Any]:
    return (path.columns() if kind == _CSV else None) or path.select


def _selected(select: Callable[[Any], Any], value: Any) -> Any:
    try:
        return select(value)
    except PathNotFoundError as error:
        raise DataError(f"{error.args[0]}.") from error


def _identified(value: Any, kind: str) -> Any:
    identity, time = str(uuid.uuid4()), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if kind == _CSV:
        return [*(value if isinstance(value, list) else [value]), identity, time]
    marks = {_ID: identity, _TIME: time}
    return {**value, **marks} if isinstance(value, dict) else {_OUTPUT: value, **marks}


def _read_csv(record: bytes, number: int) -> list[str]:
    text = record.decode("utf-8", "surrogateescape").rstrip("\r")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise DataError(f"Row {number} is not CSV: {error}.") from error


def _write_csv(value: Any) -> bytes:
    cells = [cell if isinstance(cell, str) else json.dumps(cell) for cell in _as_list(value)]
    text = ",".join(cells)
    if '"' in text or "\n" in text or any("," in cell for cell in cells):
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(cells)
        text = buffer.getvalue()
    return text.encode("utf-8", "surrogateescape")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_document(record: bytes) -> bool:
    try:
        json.loads(record)
    except ValueError:
        return False
    return True


def _read_json(record: bytes, number: int) -> Any:
    try:
        return json.loads(record)
    except ValueError as error:
        raise DataError(f"Record {number} is not JSON: {error}.") from error


def _write_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
