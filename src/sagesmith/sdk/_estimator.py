"""The estimator: an image, hyperparameters and settings; `fit` trains, `deploy` serves, and data may be anything.

What AWS's request has and this class not is given as `request=`, in AWS's own words, and merged over what is sent:
so there is one short constructor and still nothing out of reach.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from sagesmith.sdk import _hyperparameters
from sagesmith.sdk._catalog import Algorithm, algorithm_of, image_uri
from sagesmith.sdk._channels import Channel, Staged, stage
from sagesmith.sdk._errors import HyperparameterUnknown, NameInUse, NotFound, SdkError
from sagesmith.sdk._logs import Line
from sagesmith.sdk._model import Model, tag_list
from sagesmith.sdk._predictor import Predictor
from sagesmith.sdk._progress import Progress
from sagesmith.sdk._schema import Schema
from sagesmith.sdk._session import Session, default_session
from sagesmith.sdk._settings import EstimatorSettings
from sagesmith.sdk._training_job import TrainingJob
from sagesmith.sdk._upload import split_uri

if TYPE_CHECKING:
    import pandas as pd

    from sagesmith.sdk._chart import Chart
    from sagesmith.sdk._transformer import Transformer

__all__ = ["Estimator", "Hyperparameter"]

_SETTINGS: Final = frozenset(EstimatorSettings.__annotations__)
_DAY_S: Final = 86400
Hyperparameter = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None


class Estimator:
    """Trains one algorithm.

    Args:
        algorithm: the name of a built-in algorithm (``xgboost``, ``kmeans``, ...), or the URI of an image.
        **given: hyperparameters. An underscore at the end is dropped, so that ``lambda_=1`` means ``lambda``.

    All other arguments are those of `EstimatorSettings`.

    Raises:
        HyperparameterUnknown: the algorithm has no such hyperparameter; says which was probably meant.

    Attributes:
        job: the `TrainingJob`, after `fit`.
        predictor: the `Predictor`, after `deploy`.
    """

    def __init__(
        self,
        algorithm: str,
        /,
        *,
        session: Session | None = None,
        role: str | None = None,
        instance_type: str = "ml.m5.xlarge",
        instance_count: int = 1,
        volume_size_gb: int = 30,
        max_run_s: int = _DAY_S,
        output: str | None = None,
        version: str | None = None,
        environment: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metric_definitions: Mapping[str, str] | None = None,
        name: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
        **given: Hyperparameter,
    ) -> None:
        self._session = session
        self.algorithm: Algorithm | None = algorithm_of(algorithm)
        self._asked = algorithm
        self.role = role
        self.instance_type, self.instance_count = instance_type, instance_count
        self.volume_size_gb, self.max_run_s = volume_size_gb, max_run_s
        self.output, self.version = output, version
        self.environment = dict(environment or {})
        self.tags = dict(tags or {})
        self.metric_definitions = dict(metric_definitions or {})
        self.base_name = name
        self.request = dict(request or {})
        self.hyperparameters = {
            (key if key in (hyperparameters or {}) else key.rstrip("_")): value
            for key, value in {**(hyperparameters or {}), **given}.items()
            if value is not None
        }
        self._check_hyperparameters()
        if self.algorithm is None:
            self._image("us-east-1")  # an unknown name is told now, not after the data was looked at
        self.job: TrainingJob | None = None
        self.predictor: Predictor | None = None
        self.schema = Schema()

    # ---- what the kinds of estimators do differently ---------------------------------------------------

    def _image(self, region: str) -> str:
        """Return the URI of the training image."""
        return image_uri(self._asked, region, version=self.version)

    def _base(self) -> str:
        return self.base_name or (
            self.algorithm.name if self.algorithm else self._image("us-east-1").rpartition("/")[2]
        )

    def _check_hyperparameters(self) -> None:
        if self.algorithm is None:
            return
        known = _known(self.algorithm)
        needed = _hyperparameters.REQUIRED[self.algorithm.name]
        faults = []
        for name in self.hyperparameters:
            if name not in known and not name.startswith("_"):
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                faults.append(f"it has no hyperparameter {name!r}{hint}")
        faults += [f"it needs {name!r}" for name in needed if name not in self.hyperparameters]
        if faults:
            raise HyperparameterUnknown(f"{self.algorithm.title}: " + "; ".join(faults) + ".")

    def _texts(self, staged: Sequence[Staged]) -> dict[str, str]:
        """Return the hyperparameters as texts, with those that the data tells."""
        values: dict[str, Any] = dict(self.algorithm.defaults) if self.algorithm else {}
        values.update(self.hyperparameters)
        train = next((s for s in staged if s.name == "train"), staged[0] if staged else None)
        if self.algorithm is not None and train is not None:
            told = {
                "feature_dim": train.n_features,
                "mini_batch_size": train.n_rows if self.algorithm.name == "lda" else _batch(train.n_rows),
                "sample_size": train.n_rows,
            }
            for name in self.algorithm.counted:
                if name not in values:
                    if told[name] is None:
                        raise HyperparameterUnknown(
                            f"{self.algorithm.title}: data that lies in S3 already does not tell {name!r}; give it."
                        )
                    values[name] = told[name]
        return {name: _text(value) for name, value in values.items()}

    def _prepare(self, job_name: str, place: str) -> dict[str, str]:
        """Upload what a job needs besides data; return further hyperparameters."""
        return {}

    # ---- training --------------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """Where it trains."""
        if self._session is None:
            self._session = default_session()
        return self._session

    def fit(
        self,
        train: Any = None,
        *,
        validation: Any = None,
        test: Any = None,
        target: str | int | None = None,
        wait: bool = True,
        logs: bool = False,
        progress: Progress | bool = "auto",
        job_name: str | None = None,
        **channels: Any,
    ) -> Self:
        """Train.

        Args:
            train: a DataFrame, NumPy array, SciPy sparse matrix, Arrow table, path of a file or folder, S3 URI,
                `Channel`, or a pair of features and labels. It is uploaded in the best form the algorithm takes.
            validation: the same, for metrics on other rows; must have the columns of *train*.
            test: the same, for algorithms that measure themselves at the end.
            target: the label's column, by name or position.
            wait: False returns when the job is created.
            logs: print the job's log.
            progress: how to show what goes on.
            job_name: the training job's name; else one is made.
            **channels: further channels by name.

        Raises:
            DataMismatch: the data does not fit.
            NameInUse: there is a job of that name.
            JobFailed: training failed; the error has the reason and the last lines of the log.
        """
        session = self.session
        if job_name is not None:
            self._must_be_free(job_name)
        name = job_name or session.unique_name(self._base())
        place = session.s3_uri(name)
        staged = self._stage(
            {"train": train, "validation": validation, "test": test, **channels}, f"{place}/input", target
        )
        first = next((s for s in staged if s.names is not None), None)
        if first is not None:
            self.schema = Schema(first.names, first.target).save(session, f"{place}/input/columns.json")
        more = self._prepare(name, place)
        request = self._job_request(name, staged, more, self.output or session.s3_uri())
        session.call("sagemaker", "create_training_job", **request)
        session.made(lambda: _delete_prefix(session, place + "/"))
        self.job = TrainingJob(name, session=session)
        if wait:
            self.job.wait(progress=progress, logs=logs)
        return self

    def _stage(self, channels: Mapping[str, Any], place: str, target: str | int | None) -> list[Staged]:
        from concurrent.futures import ThreadPoolExecutor

        given = {name: data for name, data in channels.items() if data is not None}
        results: list[Staged] = []
        features: Sequence[str] | None = None
        for name, data in list(given.items())[:1]:
            results.append(self._stage_one(name, data, f"{place}/{name}", target, None))
            features = results[0].names
        with ThreadPoolExecutor(2) as pool:
            others = [
                pool.submit(self._stage_one, name, data, f"{place}/{name}", target, features)
                for name, data in list(given.items())[1:]
            ]
            results += [other.result() for other in others]
        self._channels = dict(given)
        return results

    def _stage_one(
        self, name: str, data: Any, uri: str, target: str | int | None, features: Sequence[str] | None
    ) -> Staged:
        needs_label = True if name == "test" and self.algorithm and self.algorithm.test_label else None
        return stage(
            self.session, name, data, uri, algorithm=self.algorithm, target=target, features=features,
            needs_label=needs_label,
        )  # fmt: skip

    def _job_request(
        self, name: str, staged: Sequence[Staged], more: Mapping[str, str], output: str
    ) -> dict[str, Any]:
        session = self.session
        specification: dict[str, Any] = {
            "TrainingImage": self._image(session.region),
            "TrainingInputMode": "File",
        }
        if self.metric_definitions:
            specification["MetricDefinitions"] = [
                {"Name": metric, "Regex": regex} for metric, regex in self.metric_definitions.items()
            ]
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": self.role if self.role and ":" in self.role else session.role,
            "AlgorithmSpecification": specification,
            "HyperParameters": {**self._texts(staged), **more},
            "OutputDataConfig": {"S3OutputPath": output},
            "ResourceConfig": {
                "InstanceType": self.instance_type,
                "InstanceCount": self.instance_count,
                "VolumeSizeInGB": self.volume_size_gb,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": self.max_run_s},
        }
        if staged:
            request["InputDataConfig"] = [self._channel_request(channel) for channel in staged]
        if self.environment:
            request["Environment"] = {key: str(value) for key, value in self.environment.items()}
        tags = tag_list(self.tags, self.schema)
        if tags:
            request["Tags"] = tags
        return _merged(request, self.request)

    def _channel_request(self, staged: Staged) -> dict[str, Any]:
        given = self._channels.get(staged.name)
        sharded = self.algorithm is not None and self.algorithm.sharded
        source = {
            "S3DataType": "S3Prefix",
            "S3Uri": staged.uri,
            "S3DataDistributionType": "ShardedByS3Key"
            if sharded and staged.name == "train"
            else "FullyReplicated",
        }
        request: dict[str, Any] = {"ChannelName": staged.name, "DataSource": {"S3DataSource": source}}
        if staged.content_type:
            request["ContentType"] = staged.content_type
        if isinstance(given, Channel):
            if given.distribution:
                source["S3DataDistributionType"] = given.distribution
            if given.input_mode:
                request["InputMode"] = given.input_mode
            request = _merged(request, given.request)
        return request

    def _must_be_free(self, name: str) -> None:
        job = TrainingJob(name, session=self.session)
        try:
            status = job.status
        except NotFound:
            return
        raise NameInUse(f"There is a training job {name!r} already ({status}): take another name.")

    @classmethod
    def attach(cls, job_name: str, *, session: Session | None = None) -> Estimator:
        """Return an estimator whose job is the training job *job_name*, to deploy or to look at.

        Raises:
            NotFound: there is no such job.
        """
        job = TrainingJob(job_name, session=session)
        found = job.describe()
        estimator = _Attached(
            found["AlgorithmSpecification"].get("TrainingImage") or "unknown:1",
            session=job.session,
            role=found["RoleArn"],
            hyperparameters=found.get("HyperParameters", {}),
            instance_type=found["ResourceConfig"].get("InstanceType", "ml.m5.xlarge"),
            instance_count=found["ResourceConfig"].get("InstanceCount", 1),
        )
        estimator.job = job
        estimator.schema = Schema.of(job.session, found["TrainingJobArn"])
        return estimator

    def _trained(self) -> TrainingJob:
        if self.job is None:
            raise SdkError(
                "This estimator has not been trained: call `fit` first, or `Estimator.attach(job_name)`."
            )
        return self.job

    def wait(self, *, progress: Progress | bool = "auto", logs: bool = False) -> Self:
        """Wait until training has ended.

        Raises:
            JobFailed: it failed.
        """
        self._trained().wait(progress=progress, logs=logs)
        return self

    def logs(self, *, follow: bool = False) -> Iterator[Line]:
        """Yield the lines of the training job's log."""
        return self._trained().logs(follow=follow)

    def metrics(self) -> pd.DataFrame:
        """Return every metric value as a DataFrame: metric, step, value, time."""
        return self._trained().metrics()

    def plot(self, *patterns: str) -> Chart:
        """Return the metrics as a chart that a notebook shows; with *patterns* only some of them."""
        return self._trained().plot(*patterns)

    def stop(self) -> None:
        """Stop the training job."""
        self._trained().stop()

    # ---- serving ---------------------------------------------------------------------------------------

    @property
    def model_data(self) -> str:
        """The S3 URI of the trained model."""
        return self._trained().model_data

    def model(self, *, environment: Mapping[str, str] | None = None, name: str | None = None) -> Model:
        """Return the trained model; *environment* are variables of its container."""
        job = self._trained()
        if "sagemaker_submit_directory" in job.describe().get("HyperParameters", {}):
            model = Model.from_job(job)
            model.environment.update(environment or {})
            model.name = name or model.name
        else:
            model = Model(
                self._image(self.session.region), self.model_data, name=name, session=self.session,
                role=self.role, environment=environment, schema=self.schema,
            )  # fmt: skip
        model.tags.update(self.tags)
        return model

    def deploy(
        self,
        *,
        instance_type: str = "ml.m5.large",
        instance_count: int = 1,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        progress: Progress | bool = "auto",
        variant: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """Serve the trained model and return the endpoint; the arguments are those of `Model.deploy`."""
        self.predictor = self.model(environment=environment).deploy(
            instance_type=instance_type,
            instance_count=instance_count,
            name=name or (self.session.unique_name(self._base()) if self.base_name else None),
            wait=wait,
            progress=progress,
            variant=variant,
            request=request,
        )
        return self.predictor

    def predict(self, data: Any) -> Any:
        """Return predictions of the endpoint that `deploy` made; see `Predictor.predict`."""
        if self.predictor is None:
            raise SdkError("There is no endpoint: call `deploy` first.")
        return self.predictor.predict(data)

    def transformer(self, **settings: Any) -> Transformer:
        """Return a `Transformer` that predicts whole files with the trained model."""
        return self.model().transformer(**settings)

    def __repr__(self) -> str:
        shown = "".join(f", {name}={value!r}" for name, value in self.hyperparameters.items())
        return f"{type(self).__name__}({self._asked!r}{shown})"


class _Attached(Estimator):
    """An estimator of a job that exists: its hyperparameters were checked when it was made."""

    def _check_hyperparameters(self) -> None:
        pass


def _known(algorithm: Algorithm) -> list[str]:
    """Return the names of the hyperparameters of *algorithm*."""
    declared = {
        "blazingtext": _hyperparameters.BlazingTextArguments,
        "factorization-machines": _hyperparameters.FactorizationMachinesArguments,
        "ipinsights": _hyperparameters.IPInsightsArguments,
        "kmeans": _hyperparameters.KMeansArguments,
        "knn": _hyperparameters.KNNArguments,
        "lda": _hyperparameters.LDAArguments,
        "linear-learner": _hyperparameters.LinearLearnerArguments,
        "pca": _hyperparameters.PCAArguments,
        "randomcutforest": _hyperparameters.RandomCutForestArguments,
        "xgboost": _hyperparameters.XGBoostArguments,
    }[algorithm.name]
    return [
        name if name.startswith("_") else name.rstrip("_")
        for name in declared.__annotations__
        if name not in _SETTINGS
    ]


def _batch(n_rows: int | None) -> int | None:
    return None if n_rows is None else max(1, min(n_rows, 1000))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value)
    return str(value.item()) if hasattr(value, "item") else str(value)


def _merged(request: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return *request* with the members of *over*, structures member by member."""
    result = dict(request)
    for key, value in over.items():
        old = result.get(key)
        result[key] = (
            _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return result


def _delete_prefix(session: Session, uri: str) -> None:
    """Delete all objects whose keys begin with the key of *uri*."""
    bucket, prefix = split_uri(uri)
    keys = [
        {"Key": found["Key"]}
        for found in session.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix)
    ]
    for start in range(0, len(keys), 1000):
        session.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": keys[start : start + 1000]})
