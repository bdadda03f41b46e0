"""An endpoint as an object: rows in, predictions out, and gone at the end of its `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sagesmith.sdk._catalog import algorithm_of, framework_of
from sagesmith.sdk._codecs import Body, Codec, codec_of, decoded, joined
from sagesmith.sdk._errors import EndpointFailed, NotFound, SdkError
from sagesmith.sdk._logs import ENDPOINTS, Line, LogReader
from sagesmith.sdk._progress import Progress, State, display
from sagesmith.sdk._schema import Schema
from sagesmith.sdk._session import Session, default_session
from sagesmith.sdk._waiting import until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictor"]

_AT_A_TIME = 4


class Predictor:
    """The endpoint *name*. How its model takes rows is told by its image, the columns by a tag that `deploy` sets.

    As a context manager it deletes the endpoint, its configuration and its models.
    """

    def __init__(
        self,
        name: str,
        *,
        session: Session | None = None,
        codec: Codec | None = None,
        schema: Schema | None = None,
    ) -> None:
        self.name = name
        self.session = session or default_session()
        self._codec, self._schema = codec, schema

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of the endpoint.

        Raises:
            NotFound: there is no such endpoint.
        """
        return self.session.call("sagemaker", "describe_endpoint", EndpointName=self.name)

    @property
    def status(self) -> str:
        """``Creating``, ``InService``, ``Updating``, ``Failed``, ``Deleting``, ..."""
        return str(self.describe()["EndpointStatus"])

    @property
    def features(self) -> tuple[str, ...] | None:
        """The columns that the model takes, in its order; None if nothing tells."""
        return self._known()[1].features

    def wait(self, *, progress: Progress | bool = "auto", timeout_s: float | None = None) -> Self:
        """Wait until the endpoint is in service.

        Raises:
            EndpointFailed: it did not come into service; the error has the reason.
        """
        with display(progress) as screen:

            def seen(found: dict[str, Any]) -> None:
                status = found["EndpointStatus"]
                screen.show(
                    State(
                        self.name,
                        status,
                        found.get("FailureReason", ""),
                        failed=status == "Failed",
                        done=status in ("InService", "Failed"),
                    )
                )

            found = until(
                self.describe,
                lambda found: found["EndpointStatus"] in ("InService", "Failed", "OutOfService"),
                self.session,
                timeout_s=timeout_s,
                what=f"The endpoint {self.name}",
                seen=seen,
            )
        if found["EndpointStatus"] != "InService":
            raise EndpointFailed(
                f"The endpoint {self.name} is {found['EndpointStatus']}: {found.get('FailureReason', 'no reason is given')}"
            )
        return self

    # ---- predicting ------------------------------------------------------------------------------------

    def predict(
        self,
        data: Any,
        *,
        content_type: str | None = None,
        accept: str | None = None,
        variant: str | None = None,
    ) -> Any:
        """Return the model's predictions for *data*.

        Args:
            data: a DataFrame, array, sparse matrix, Arrow table, list of rows or path; columns of the training
                data are found by name, others left out. Bytes and dicts are sent as they are.
            content_type: what bytes are; text and dicts are JSON unless said.
            accept: the form of the answer; else what suits the model.
            variant: the production variant to ask; else they share the traffic.

        Returns:
            For a DataFrame, Arrow table or path a DataFrame with the index of the rows and a column for each thing that
            the model says; for arrays an array: (n_samples,) if that is one thing, else (n_samples, n_things).
            What the model says that is no table is returned as it is.

        Raises:
            DataMismatch: the rows are not the model's.
            EndpointFailed: the model answered with an error.
        """
        if isinstance(data, (bytes, bytearray, dict)) or content_type is not None:
            return self._raw(data, content_type, accept, variant)
        codec, schema = self._known()
        given = Path(data) if isinstance(data, str) and Path(data).is_file() else data
        bodies = codec.bodies(given, schema)

        def ask(body: Body) -> Any:
            answer, kind = self.invoke(
                body.data, content_type=body.content_type, accept=accept or body.accept, variant=variant
            )
            return decoded(answer, kind, codec.answer_key)

        first = next(bodies, None)
        if first is None:
            raise SdkError("The given data has no rows.")
        answers = [ask(first)]
        second = next(bodies, None)
        if second is not None:
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                waiting = [pool.submit(ask, second)]
                for body in bodies:
                    if len(waiting) > 4 * _AT_A_TIME:
                        waiting[-4 * _AT_A_TIME].result()
                    waiting.append(pool.submit(ask, body))
                answers += [future.result() for future in waiting]
        return _like(joined(answers), given)

    def _raw(self, data: Any, content_type: str | None, accept: str | None, variant: str | None) -> Any:
        import json

        if isinstance(data, (bytes, bytearray)):
            body = bytes(data)
        elif isinstance(data, str):
            body = data.encode()
        else:
            body = json.dumps(data).encode()
        answer, kind = self.invoke(
            body, content_type=content_type or "application/json", accept=accept or "*/*", variant=variant
        )
        if kind.partition(";")[0].strip() == "application/json":
            return json.loads(answer)
        return answer.decode() if kind.startswith("text/") else answer

    def invoke(
        self, body: bytes, *, content_type: str, accept: str = "*/*", variant: str | None = None
    ) -> tuple[bytes, str]:
        """Send *body* as it is; return the answer and its content type."""
        more = {"TargetVariant": variant} if variant else {}
        answer = self.session.call(
            "sagemaker-runtime",
            "invoke_endpoint",
            EndpointName=self.name,
            Body=body,
            ContentType=content_type,
            Accept=accept,
            **more,
        )
        content: bytes = answer["Body"].read()
        return content, str(answer.get("ContentType", ""))

    def _known(self) -> tuple[Codec, Schema]:
        """Return codec and schema, found by asking for endpoint, configuration and model if nothing told them."""
        if self._codec is None or self._schema is None:
            endpoint = self.describe()
            if self._schema is None:
                self._schema = Schema.of(self.session, endpoint["EndpointArn"])
            if self._codec is None:
                image = self._image(endpoint["EndpointConfigName"])
                algorithm = algorithm_of(image) if image else None
                self._codec = codec_of(algorithm, framework_of(image) if image else None)
        return self._codec, self._schema

    def _image(self, configuration: str) -> str:
        config = self.session.call("sagemaker", "describe_endpoint_config", EndpointConfigName=configuration)
        name = config["ProductionVariants"][0].get("ModelName")
        if not name:
            return ""
        model = self.session.call("sagemaker", "describe_model", ModelName=name)
        container = model.get("PrimaryContainer") or (model.get("Containers") or [{}])[0]
        return str(container.get("Image", ""))

    # ---- log and end -----------------------------------------------------------------------------------

    def logs(self, *, follow: bool = False) -> Iterator[Line]:
        """Yield the lines of the endpoint's containers; with *follow* those that come too, while it exists."""
        reader = LogReader(self.session, f"{ENDPOINTS}/{self.name}", "")
        if not follow:
            yield from reader.read()
            return

        def gone() -> bool:
            try:
                return self.status in ("Failed", "Deleting")
            except NotFound:
                return True

        yield from reader.follow(gone)

    def delete(self, *, wait: bool = False) -> None:
        """Delete the endpoint, its configuration and its models; what is already gone is no error."""
        configuration, models = "", []
        try:
            configuration = self.describe()["EndpointConfigName"]
            config = self.session.call(
                "sagemaker", "describe_endpoint_config", EndpointConfigName=configuration
            )
            models = [v["ModelName"] for v in config["ProductionVariants"] if v.get("ModelName")]
        except NotFound:
            pass
        steps = [("delete_endpoint", {"EndpointName": self.name})]
        if configuration:
            steps.append(("delete_endpoint_config", {"EndpointConfigName": configuration}))
        steps += [("delete_model", {"ModelName": model}) for model in models]
        for operation, request in steps:
            try:
                self.session.call("sagemaker", operation, **request)
            except NotFound:
                continue
        if wait:
            until(self._is_gone, bool, self.session, what=f"Deleting the endpoint {self.name}")

    def _is_gone(self) -> bool:
        try:
            self.describe()
        except NotFound:
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        return f"Predictor({self.name!r})"


def _like(answer: Any, data: Any) -> Any:
    """Return *answer* in the kind of *data*: a DataFrame with its index, or an array."""
    import pandas as pd

    if not isinstance(answer, pd.DataFrame):
        return answer
    if isinstance(data, (pd.DataFrame, pd.Series)):
        if len(answer) == len(data):
            answer.index = data.index
        return answer
    if isinstance(data, Path) or hasattr(data, "to_batches"):
        return answer
    frame: pd.DataFrame = answer
    if any(dtype.kind == "O" for dtype in frame.dtypes):
        return frame
    array = frame.to_numpy()
    return array[:, 0] if array.shape[1] == 1 else array
