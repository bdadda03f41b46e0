"""What an instance is told when it starts, and what it says and hears afterwards.

An instance is one agent process. It gets an :class:`InstanceSpec` as JSON, then sends *messages* (numbered,
kept in its journal until acknowledged) and receives *commands*; both are the small dataclasses below, as
JSON objects with a `kind`. Nothing here knows the server.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, ClassVar, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from sagesmith.images import PythonEnvironment

__all__ = [
    "ChannelSpec",
    "Command",
    "ContainerSpec",
    "Credentials",
    "Exited",
    "Finished",
    "InstanceSpec",
    "Log",
    "MergeArtifacts",
    "Message",
    "MetricValue",
    "NotebookTask",
    "Ready",
    "Repository",
    "ServedContainer",
    "ServerAddress",
    "ServingTask",
    "Shutdown",
    "Stage",
    "Stop",
    "TrainingTask",
    "TransformTask",
    "Unhealthy",
    "Uploaded",
    "Utilization",
    "command_from_json",
    "from_json",
    "message_from_json",
    "to_json",
]


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the control plane and its S3 answer. `server_file` is read again when `url` is not reachable."""

    url: str
    ca_file: str = ""
    server_file: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys: the agent's own (token only), or the execution role's for container and S3 access."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""
    expiration: float = 0.0


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What runs in the container.

    `runtime` is ``process`` or ``docker``. For a process, `command` is the full command line, run with
    `python_prefix` (a virtual environment) on the path, or with the environment `python`, which the agent finds or
    builds where it runs; `warm` names the kind of warm process that can take
    the work instead of a fresh start ("" if none can). For Docker, `image` is the reference and `command` is
    what follows it; `entrypoint` replaces the image's own.
    """

    runtime: str
    image: str
    command: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    python_prefix: str = ""
    network: bool = True
    warm: str = ""
    hostname: str = ""
    python: PythonEnvironment | None = None


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One input channel, as in `InputDataConfig` (S3 data sources)."""

    name: str
    s3_uri: str
    s3_data_type: str = "S3Prefix"
    distribution: str = "FullyReplicated"
    input_mode: str = "File"
    content_type: str = ""
    compression: str = "None"
    record_wrapper: str = "None"
    attribute_names: tuple[str, ...] = ()
    shuffle_seed: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A training job's part of the spec: channels in, artifacts out, limits.

    `code_uri` is an archive of the user's code, unpacked to /opt/ml/code.
    `output_uri` is ``s3://bucket/prefix/{job}/output`` (artifacts are `model.tar.gz` and `output.tar.gz` below
    it, or plain files below ``model/`` if `compression` is NONE). Times are in seconds.
    """

    kind: ClassVar[str] = "training"
    job_name: str
    job_arn: str
    hyperparameters: Mapping[str, str]
    channels: tuple[ChannelSpec, ...]
    output_uri: str
    compression: str = "GZIP"
    checkpoint_uri: str = ""
    checkpoint_path: str = "/opt/ml/checkpoints"
    metric_definitions: tuple[tuple[str, str], ...] = ()
    stop_grace_s: float = 120.0
    code_uri: str = ""


@dataclass(frozen=True, slots=True)
class ServedContainer:
    """One of several containers of an endpoint's instance, with its own model; see `ServingTask`."""

    name: str
    container: ContainerSpec
    model_data: str = ""
    model_data_type: str = "S3Object"
    model_data_compression: str = "Gzip"
    code_uri: str = ""


@dataclass(frozen=True, slots=True)
class ServingTask:
    """An endpoint instance's part of the spec.

    `model_data` is an S3 URI of a `.tar.gz` or, if `model_data_type` is S3Prefix, of a prefix; "" for none.
    `code_uri` is an archive of the user's code, unpacked to /opt/ml/code. `containers` are those of a model that has
    several; requests go through all of them in turn, or if `direct` to the one they name. The instance's own
    container and model are then the first one's. If `many`, `model_data` is the prefix below which the artifacts of
    many models lie, which are loaded when they are asked for, and unless `cached` leave when they are not any more.
    If `vacant`, it serves nothing itself: copies of inference components come to be inside it. If `limited`, its
    processes may take no more memory than the instance has; others share what the machine has. A model with code of the
    user's may take `invocation_timeout_s` for an answer.
    """

    kind: ClassVar[str] = "serving"
    endpoint_name: str
    variant_name: str
    model_data: str = ""
    model_data_type: str = "S3Object"
    model_data_compression: str = "Gzip"
    startup_timeout_s: float = 240.0
    download_timeout_s: float = 3600.0
    invocation_timeout_s: float = 60.0
    workers: int = 1
    code_uri: str = ""
    containers: tuple[ServedContainer, ...] = ()
    direct: bool = False
    many: bool = False
    cached: bool = True
    vacant: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True)
class TransformTask:
    """A transform job's part of the spec: a model, what goes through it, and where the answers go.

    The model is described as in `ServingTask`, the rest as in CreateTransformJob. `max_concurrent` 0,
    `max_payload_mb` None and `batch_strategy` "" are asked of the model server. `uid` marks the job's outputs, and
    `attempt` above 0 says that an earlier instance may have written some of them. `created` is the job's time.
    """

    kind: ClassVar[str] = "transform"
    job_name: str
    uid: str
    input_uri: str
    output_uri: str
    created: float = 0.0
    attempt: int = 0
    model_data: str = ""
    model_data_type: str = "S3Object"
    model_data_compression: str = "Gzip"
    code_uri: str = ""
    workers: int = 1
    startup_timeout_s: float = 240.0
    invocation_timeout_s: float = 600.0
    max_retries: int = 3
    input_type: str = "S3Prefix"
    content_type: str = ""
    compression: str = "None"
    split_type: str = "None"
    batch_strategy: str = ""
    max_payload_mb: int | None = None
    max_concurrent: int = 0
    accept: str = ""
    assemble_with: str = "None"
    input_filter: str = "$"
    output_filter: str = "$"
    join_source: str = "None"
    capture_uri: str = ""
    identify: bool = False


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository that a notebook is given a clone of; *branch* "" is the repository's own choice."""

    url: str
    branch: str = ""


@dataclass(frozen=True, slots=True)
class NotebookTask:
    """A notebook instance's part of the spec.

    `volume` is the folder that stays; `base_url` the path below which JupyterLab answers, `token` what it knows the
    server by. `on_create` (run until it has once succeeded, which `created` says) and `on_start` are shell scripts,
    "" for none; `config_arn` is the lifecycle configuration that they are of. Clones of `repositories` are put into
    the volume; JupyterLab opens in the first if `opens_first`. Without `internet` nothing but the server is reached.
    More than `volume_bytes` in the volume is told; 0 for any amount.
    """

    kind: ClassVar[str] = "notebook"
    name: str
    arn: str
    role_arn: str
    volume: str
    base_url: str
    token: str
    internet: bool = True
    created: bool = False
    on_create: str = ""
    on_start: str = ""
    config_arn: str = ""
    repositories: tuple[Repository, ...] = ()
    opens_first: bool = False
    volume_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Everything one instance needs to know. Memory is in bytes.

    One that is `inside` another shares what that has of the machine, and ends with it.
    """

    instance_id: str
    owner_arn: str
    instance_type: str
    region: str
    account_id: str
    server: ServerAddress
    agent_token: str
    role: Credentials
    container: ContainerSpec
    task: TrainingTask | ServingTask | TransformTask | NotebookTask
    log_group: str
    log_stream: str
    host: str = "algo-1"
    hosts: tuple[str, ...] = ("algo-1",)
    instance_group: str = "homogeneousCluster"
    vcpus: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    inside: str = ""


# ---- messages: agent to control plane ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """The work reached *stage*: Downloading, DownloadingTrainingImage, Training, Uploading."""

    kind: ClassVar[str] = "stage"
    stage: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Lines of the container's output: (milliseconds since 1970, text) each; with *part*, of another stream below."""

    kind: ClassVar[str] = "log"
    lines: tuple[tuple[int, str], ...]
    part: str = ""


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric definition matched a log line."""

    kind: ClassVar[str] = "metric"
    name: str
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class Utilization:
    """What the container used of its instance, in percent (CPU: of one vCPU, so up to 100 x vCPUs)."""

    kind: ClassVar[str] = "utilization"
    cpu: float
    memory: float
    disk: float
    time: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model server passed its first `/ping`. *address* is ``unix:/path`` or ``tcp:host:port``, where it speaks
    frames, or ``http:host:port``; or of several containers ``serial|`` or ``direct|`` and then ``name=address`` of each,
    with ``|`` between; or of many models ``models|`` and the address of who loads them, and ``|uncached`` if each
    is to leave when it is not asked for any more. A model of those may be at ``http:host:port/path``. Where nothing is served
    it is ``vacant``."""

    kind: ClassVar[str] = "ready"
    address: str
    protocol: str = "frames"


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The model server stopped answering `/ping`, or ended; the agent restarts it by itself."""

    kind: ClassVar[str] = "unhealthy"
    reason: str
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Exited:
    """The training container ended. *failure* is the text of /opt/ml/output/failure, at most 1024 characters."""

    kind: ClassVar[str] = "exited"
    exit_code: int
    failure: str = ""
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Uploaded:
    """This host's artifacts are in S3. With several hosts *part_uri* names this host's part, still to be merged."""

    kind: ClassVar[str] = "uploaded"
    model_uri: str = ""
    part_uri: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The instance's last message. *error* is empty, or says what went wrong outside the container."""

    kind: ClassVar[str] = "finished"
    error: str = ""
    client_error: bool = False


Message: TypeAlias = (
    Stage | Log | MetricValue | Utilization | Ready | Unhealthy | Exited | Uploaded | Finished
)


# ---- commands: control plane to agent ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stop:
    """End the container: SIGTERM, wait up to *grace_s*, SIGKILL; then upload as after a normal end."""

    kind: ClassVar[str] = "stop"
    reason: str = ""
    grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class MergeArtifacts:
    """All hosts uploaded: make the one artifact from their parts (only the first host is told)."""

    kind: ClassVar[str] = "merge"
    part_uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The instance's work is over: end everything and go."""

    kind: ClassVar[str] = "shutdown"
    grace_s: float = 30.0


Command: TypeAlias = Stop | MergeArtifacts | Shutdown


# ---- JSON --------------------------------------------------------------------------------------------

_T = TypeVar("_T")
_BY_KIND: dict[str, type[Any]] = {
    c.kind: c
    for c in (
        TrainingTask, ServingTask, TransformTask, NotebookTask, Stage, Log, MetricValue, Utilization, Ready, Unhealthy, Exited, Uploaded,
        Finished, Stop, MergeArtifacts, Shutdown,
    )
}  # fmt: skip


def to_json(value: Any) -> Any:
    """Return *value*, one of the dataclasses above, as what `json.dumps` takes; unions carry their `kind`."""
    if is_dataclass(value):
        result = {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
        kind = getattr(type(value), "kind", None)
        return result if kind is None else {**result, "kind": kind}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(wanted: type[_T], data: Any) -> _T:
    """Return the *wanted* dataclass from what :func:`to_json` made; unknown members are ignored."""
    result = _build(wanted, data)
    if not isinstance(result, wanted):
        raise TypeError(f"{type(result).__name__} is not a {wanted.__name__}")
    return result


def message_from_json(data: Mapping[str, Any]) -> Message:
    """Return the message that *data* is."""
    result: Message = _build(_BY_KIND[data["kind"]], data)
    return result


def command_from_json(data: Mapping[str, Any]) -> Command:
    """Return the command that *data* is."""
    result: Command = _build(_BY_KIND[data["kind"]], data)
    return result


@functools.cache
def _hints(wanted: type[Any]) -> Mapping[str, Any]:
    return get_type_hints(wanted)


def _build(wanted: Any, data: Any) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        if data is None:
            return None
        if isinstance(data, Mapping) and "kind" in data:
            return _build(_BY_KIND[data["kind"]], data)
        return _build(next(a for a in get_args(wanted) if a is not type(None)), data)
    if origin is tuple:
        args = get_args(wanted)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_build(args[0], item) for item in data)
        return tuple(_build(arg, item) for arg, item in zip(args, data, strict=True))
    if is_dataclass(wanted):
        hints = _hints(wanted if isinstance(wanted, type) else type(wanted))
        known = {f.name for f in fields(wanted)}
        return wanted(**{k: _build(hints[k], v) for k, v in data.items() if k in known})  # type: ignore[operator]
    if origin is not None and issubclass(origin, Mapping):
        return dict(data)
    return data
