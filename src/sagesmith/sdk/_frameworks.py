"""Your own script in a framework's container: it trains with the arguments it is given, and serves what it left.

The script, or the folder it lies in, goes into S3 as an archive. To serve, some containers fetch it from there and
others want it inside the model's archive; `ScriptModel` knows which.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from sagesmith.sdk._catalog import FRAMEWORKS, Framework, framework_image, framework_of
from sagesmith.sdk._errors import DataMismatch, SdkError
from sagesmith.sdk._estimator import Estimator
from sagesmith.sdk._model import Model
from sagesmith.sdk._settings import EstimatorSettings
from sagesmith.sdk._upload import ObjectWriter, download

if TYPE_CHECKING:
    from sagesmith.sdk._schema import Schema
    from sagesmith.sdk._training_job import TrainingJob

__all__ = [
    "HuggingFace",
    "MXNet",
    "PyTorch",
    "SKLearn",
    "ScriptEstimator",
    "ScriptModel",
    "TensorFlow",
    "XGBoostScript",
    "model_of_job",
]

_PIECE = 1 << 20


class ScriptSettings(EstimatorSettings, total=False):
    """The settings of a framework's estimator.

    Keys:
        source_dir: the folder that the script lies in, with all that it imports; else the script goes alone.
        py: the Python of the image, such as ``py312``.
        serve_script: the script that serves, if it is another; it lies beside the first.
    """

    source_dir: str | Path | None
    py: str | None
    serve_script: str | None


class ScriptEstimator(Estimator):
    """Trains with a script of yours in a framework's container.

    Args:
        script: path of the script; with `source_dir` it is relative to that.
        **settings: see `ScriptSettings` and `EstimatorSettings`; `hyperparameters` become the script's arguments.

    Raises:
        DataMismatch: there is no such file.
    """

    framework: ClassVar[Framework]

    def __init__(self, script: str | Path, /, **settings: Unpack[ScriptSettings]) -> None:
        given: dict[str, Any] = dict(settings)
        folder = given.pop("source_dir", None)
        self._py = given.pop("py", None)
        self._serve_script = given.pop("serve_script", None)
        self._folder = None if folder is None else Path(folder)
        self._script = Path(script)
        path = self._script if self._folder is None else self._folder / self._script
        if not path.is_file():
            raise DataMismatch(f"There is no script {path}.")
        super().__init__(f"script:{self.framework.name}", **given)

    def _image(self, region: str, *, serving: bool = False, instance_type: str | None = None) -> str:
        return framework_image(
            self.framework, region, instance_type=instance_type or self.instance_type, serving=serving,
            version=self.version, py=self._py,
        )  # fmt: skip

    def _base(self) -> str:
        return self.base_name or self.framework.name

    def _check_hyperparameters(self) -> None:
        self.algorithm = None  # whatever the image is called, the script decides

    def _texts(self, staged: Any) -> dict[str, str]:
        return {name: json.dumps(value, default=_plain) for name, value in self.hyperparameters.items()}

    def _prepare(self, job_name: str, place: str) -> dict[str, str]:
        uri = f"{place}/source/sourcedir.tar.gz"
        with ObjectWriter(self.session, uri) as file:
            file.write(_archive(self._script, self._folder))
        program = self._script.as_posix() if self._folder is not None else self._script.name
        more = {
            "sagemaker_program": program,
            "sagemaker_submit_directory": uri,
            "sagemaker_container_log_level": 20,
            "sagemaker_job_name": job_name,
            "sagemaker_region": self.session.region,
        }
        if self.framework.name == "tensorflow" and "model_dir" not in self.hyperparameters:
            more["model_dir"] = "/opt/ml/model"
        return {name: json.dumps(value) for name, value in more.items()}

    def model(self, *, environment: Mapping[str, str] | None = None, name: str | None = None) -> Model:
        """Return the trained model, which the script serves; *environment* are variables of its container."""
        job = self._trained()
        found = job.describe()["HyperParameters"]
        model = ScriptModel(
            self._image(self.session.region, serving=True, instance_type="ml.m5.large"), self.model_data,
            script=self._serve_script or json.loads(found["sagemaker_program"]),
            source_uri=json.loads(found["sagemaker_submit_directory"]),
            repack=self.framework.repack, serves=self.framework.name != "tensorflow" or bool(self._serve_script),
            name=name, session=self.session, role=self.role, environment=environment, schema=self.schema,
        )  # fmt: skip
        model.tags.update(self.tags)
        return model


class ScriptModel(Model):
    """A model that a script serves.

    Args:
        image, model_data, settings: as for `Model`.
        script: the script's name within its archive.
        source_uri: S3 URI of the archive of the script.
        repack: put the script into the model's archive, for containers that want it there.
        serves: whether the script has a part in serving at all.
    """

    def __init__(
        self,
        image: str,
        model_data: str,
        *,
        script: str,
        source_uri: str,
        repack: bool = False,
        serves: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(image, model_data, **settings)
        self._script, self._source_uri, self._repack, self._serves = script, source_uri, repack, serves

    def prepare(self) -> None:
        """Tell the container which script serves, and where it lies."""
        if not self._serves:
            return
        place = self._source_uri
        if self._repack:
            assert self.model_data is not None  # noqa: S101 - a script's model has an archive
            target = self.session.s3_uri(self.session.unique_name(self._base()), "model.tar.gz")
            _repacked(self, self.model_data, self._source_uri, target)
            self.model_data, place, self._repack = target, "/opt/ml/model/code", False
        self.environment = {
            "SAGEMAKER_PROGRAM": self._script,
            "SAGEMAKER_SUBMIT_DIRECTORY": place,
            "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
            "SAGEMAKER_REGION": self.session.region,
            **self.environment,
        }


def model_of_job(job: TrainingJob, found: Mapping[str, Any], schema: Schema) -> ScriptModel:
    """Return the model of a job that ran a script, as `describe` found it."""
    image = str(found["AlgorithmSpecification"]["TrainingImage"])
    parameters = found["HyperParameters"]
    framework = framework_of(image)
    name = framework.name if framework else ""
    return ScriptModel(
        image.replace("-training:", "-inference:"), job.model_data,
        script=json.loads(parameters["sagemaker_program"]),
        source_uri=json.loads(parameters["sagemaker_submit_directory"]),
        repack=bool(framework and framework.repack), serves=name != "tensorflow",
        session=job.session, role=found["RoleArn"], schema=schema,
    )  # fmt: skip


class SKLearn(ScriptEstimator):
    """scikit-learn: `SKLearn("train.py", hyperparameters={"alpha": 0.1}).fit(frame)`."""

    framework = FRAMEWORKS["sklearn"]


class XGBoostScript(ScriptEstimator):
    """XGBoost in a script of yours; `XGBoost` is the built-in algorithm."""

    framework = FRAMEWORKS["xgboost"]


class PyTorch(ScriptEstimator):
    """PyTorch."""

    framework = FRAMEWORKS["pytorch"]


class TensorFlow(ScriptEstimator):
    """TensorFlow; what the script saved is served by TensorFlow's own server unless `serve_script` is given."""

    framework = FRAMEWORKS["tensorflow"]


class MXNet(ScriptEstimator):
    """MXNet."""

    framework = FRAMEWORKS["mxnet"]


class HuggingFace(ScriptEstimator):
    """Hugging Face's Transformers on PyTorch; `version` is that of Transformers."""

    framework = FRAMEWORKS["huggingface"]


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python number."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a hyperparameter of type {type(value).__name__} cannot be given to a script")


def _archive(script: Path, folder: Path | None) -> bytes:
    """Return a .tar.gz of the script, or of the folder it lies in; equal files give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        if folder is None:
            archive.add(script, script.name, filter=_anonymous)
        else:
            for path in sorted(folder.rglob("*")):
                relative = path.relative_to(folder)
                if path.is_file() and "__pycache__" not in relative.parts and ".git" not in relative.parts:
                    archive.add(path, relative.as_posix(), filter=_anonymous)
    return buffer.getvalue()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _repacked(model: Model, model_data: str, source_uri: str, target: str) -> None:
    """Write the archive *model_data* with the files of the archive *source_uri* below ``code/`` to *target*."""
    with (
        tempfile.TemporaryFile() as trained,
        tempfile.TemporaryFile() as source,
        ObjectWriter(model.session, target) as result,
    ):
        for uri, file in ((model_data, trained), (source_uri, source)):
            download(model.session, uri, file)
            file.seek(0)
        sink: Any = result  # tarfile wants no more of it than `write`
        try:
            with (
                tarfile.open(fileobj=trained, mode="r:gz") as old,
                tarfile.open(fileobj=source, mode="r:gz") as code,
                tarfile.open(fileobj=sink, mode="w|gz") as new,
            ):
                for archive, prefix in ((old, ""), (code, "code/")):
                    for member in archive.getmembers():
                        name = member.name.removeprefix("./")
                        if not name or (not prefix and name.split("/")[0] == "code"):
                            continue
                        content = archive.extractfile(member) if member.isfile() else None
                        member.name = prefix + name
                        new.addfile(member, content)
        except tarfile.TarError as error:
            raise SdkError(f"The model {model_data} is not a .tar.gz archive: {error}") from error
