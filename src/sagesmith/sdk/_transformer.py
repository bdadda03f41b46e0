"""Batch transform: predictions for whole files, without an endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagesmith.sdk._catalog import algorithm_of, framework_of
from sagesmith.sdk._channels import Channel
from sagesmith.sdk._codecs import codec_of, decoded
from sagesmith.sdk._errors import SdkError
from sagesmith.sdk._logs import Line
from sagesmith.sdk._progress import Progress
from sagesmith.sdk._tables import PLAIN_SUFFIXES, numbers, table_of
from sagesmith.sdk._transform_job import TransformJob
from sagesmith.sdk._upload import ObjectWriter, read_object, split_uri, upload_file, upload_folder

if TYPE_CHECKING:
    from sagesmith.sdk._model import Model

__all__ = ["Transformer"]


class Transformer:
    """Predicts with *model* for every row of files.

    Args:
        model: the model; it is created if it was not.
        instance_type: of the job's instances.
        instance_count: how many.
        output: S3 URI below which the predictions are put; else the session's bucket.
        accept: the form of the predictions; CSV where the model can, unless said.
        strategy: ``MultiRecord`` or ``SingleRecord``.
        max_payload_mb: most megabytes of a request.
        environment: environment variables of the container.
        request: members of `CreateTransformJob` merged over what is sent.
    """

    def __init__(
        self,
        model: Model,
        *,
        instance_type: str = "ml.m5.large",
        instance_count: int = 1,
        output: str | None = None,
        accept: str | None = None,
        strategy: str | None = None,
        max_payload_mb: int | None = None,
        environment: Mapping[str, str] | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self.session = model, model.session
        self.instance_type, self.instance_count = instance_type, instance_count
        self._output, self.accept, self.strategy = output, accept, strategy
        self.max_payload_mb = max_payload_mb
        self.environment = dict(environment or {})
        self.request = dict(request or {})
        self.name: str | None = None
        self._algorithm = algorithm_of(model.image)

    def transform(
        self,
        data: Any,
        *,
        content_type: str | None = None,
        split: str | None = "Line",
        wait: bool = True,
        progress: Progress | bool = "auto",
        job_name: str | None = None,
    ) -> Transformer:
        """Predict for *data*.

        Args:
            data: a DataFrame, array, Arrow table, path of a file or folder, or S3 URI. Tables are sent as CSV with the
                columns of the training data; files and what lies in S3 as they are.
            content_type: what files are; else as their suffix says.
            split: ``Line`` sends lines, ``None`` whole files.
            wait: False returns when the job is created.
            progress: how to show what goes on.
            job_name: the job's name; else one is made.

        Raises:
            JobFailed: it failed.
        """
        name = job_name or self.session.unique_name(f"{self._model._base()}-transform")
        uri, kind = self._uploaded(data, self.session.s3_uri(name, "input"), content_type)
        output: dict[str, Any] = {"S3OutputPath": self._output or self.session.s3_uri(name, "output")}
        accept = self.accept or ("text/csv" if self._algorithm and self._algorithm.form == "table" else None)
        if accept:
            output["Accept"] = accept
        if split == "Line":
            output["AssembleWith"] = "Line"
        source: dict[str, Any] = {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
            "SplitType": split or "None",
        }
        if kind:
            source["ContentType"] = kind
        request: dict[str, Any] = {
            "TransformJobName": name,
            "ModelName": self._model.create(),
            "TransformInput": source,
            "TransformOutput": output,
            "TransformResources": {"InstanceType": self.instance_type, "InstanceCount": self.instance_count},
        }
        if self.strategy:
            request["BatchStrategy"] = self.strategy
        if self.max_payload_mb is not None:
            request["MaxPayloadInMB"] = self.max_payload_mb
        if self.environment:
            request["Environment"] = self.environment
        self.session.call("sagemaker", "create_transform_job", **{**request, **self.request})
        self.name = name
        if wait:
            self.wait(progress=progress)
        return self

    def _uploaded(self, data: Any, place: str, content_type: str | None) -> tuple[str, str | None]:
        """Put *data* below *place* unless it lies in S3; return its URI and content type."""
        if isinstance(data, Channel):
            data, content_type = data.data, data.content_type or content_type
        if isinstance(data, str) and data.startswith("s3://"):
            return data, content_type or PLAIN_SUFFIXES.get(Path(data).suffix.lower())
        if isinstance(data, (str, Path)):
            path = Path(data)
            if path.is_dir():
                first = next((p for p in sorted(path.rglob("*")) if p.is_file()), path)
                upload_folder(self.session, path, place)
                return place + "/", content_type or PLAIN_SUFFIXES.get(first.suffix.lower())
            if content_type or path.suffix.lower() not in (".csv", ".parquet", ".npy"):
                if not path.is_file():
                    raise SdkError(f"There is no file {path}.")
                uri = f"{place}/{path.name}"
                upload_file(self.session, path, uri)
                return uri, content_type or PLAIN_SUFFIXES.get(path.suffix.lower())
            data = path
        names = self._model.schema.features
        table = table_of(data, target=None, what="given", features=names if _has_names(data) else None)
        uri = f"{place}/rows.csv"
        with ObjectWriter(self.session, uri) as file:
            for piece in table.read():
                rows = numbers(piece, "given")
                rows = rows.toarray() if hasattr(rows, "toarray") else rows
                file.write("".join(",".join(map(repr, row)) + "\n" for row in rows.tolist()).encode())
        return uri, "text/csv"

    @property
    def job(self) -> TransformJob:
        """The job that `transform` has started.

        Raises:
            SdkError: there is none yet.
        """
        if self.name is None:
            raise SdkError("There is no transform job: call `transform` first.")
        return TransformJob(self.name, session=self.session)

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of the job."""
        return self.job.describe()

    def wait(self, *, progress: Progress | bool = "auto", timeout_s: float | None = None) -> Transformer:
        """Wait until the job has ended.

        Raises:
            JobFailed: it failed; the error has the reason and the last lines of the log.
        """
        self.job.wait(progress=progress, timeout_s=timeout_s)
        return self

    def logs(self, *, follow: bool = False) -> Iterator[Line]:
        """Yield the lines of the job's log; with *follow*, also those that come, until the job has ended."""
        yield from self.job.logs(follow=follow)

    def stop(self, *, wait: bool = False) -> None:
        """Stop the job; nothing happens if it has ended."""
        self.job.stop(wait=wait)

    def files(self) -> list[str]:
        """Return the S3 URIs of the predictions, one for each file of the input."""
        path = self.describe()["TransformOutput"]["S3OutputPath"].rstrip("/")
        bucket, prefix = split_uri(path)
        return [
            f"s3://{bucket}/{found['Key']}"
            for found in self.session.pages(
                "s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix + "/"
            )
            if found["Key"].endswith(".out")
        ]

    def output(self) -> Any:
        """Return the predictions of all files as one DataFrame, or as text where they are no table.

        Raises:
            SdkError: the job has not ended, or has written nothing.
        """
        import pandas as pd

        files = self.files()
        if not files:
            raise SdkError(
                f"The transform job {self.name} has written nothing; it is {self.describe()['TransformJobStatus']}."
            )
        codec = codec_of(self._algorithm, framework_of(self._model.image))
        parts = [_decoded(read_object(self.session, uri), codec.answer_key) for uri in files]
        if all(isinstance(part, pd.DataFrame) for part in parts):
            return pd.concat(parts, ignore_index=True)
        return parts[0] if len(parts) == 1 else parts

    def __repr__(self) -> str:
        return f"Transformer({self._model!r}, job={self.name!r})"


def _has_names(data: Any) -> bool:
    return hasattr(data, "columns") or hasattr(data, "schema") or isinstance(data, Path)


def _decoded(body: bytes, key: str) -> Any:
    """Return the content of an output file: JSON documents, one a line, put together, or CSV."""
    import pandas as pd

    text = body.decode("utf-8", "replace").strip()
    if not text.startswith(("{", "[")):
        return decoded(body, "text/csv")
    try:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError:
        return decoded(body, "application/json", key)
    parts = [decoded(json.dumps(document).encode(), "application/json", key) for document in documents]
    if all(isinstance(part, pd.DataFrame) for part in parts):
        return pd.concat(parts, ignore_index=True)
    return decoded(json.dumps(documents).encode(), "application/json") if len(parts) > 1 else parts[0]
