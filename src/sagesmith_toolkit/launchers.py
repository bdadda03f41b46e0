"""How a script is started on the hosts of a job: alone, by torchrun, by mpirun, or beside parameter servers.

The hosts of a job may share one machine, and its network, with each other and with other jobs. So the ports that
SageMaker's containers fix (7777, 2222) are free ones here, which the hosts tell each other first; a script reads them
where it always did, in ``MASTER_PORT`` and ``TF_CONFIG``.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence

from sagesmith_toolkit.environment import Environment
from sagesmith_toolkit.script import Script, gpu_count

if TYPE_CHECKING:
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["Launch", "launch", "tf_config", "torchrun_defaults"]

MPI = "sagemaker_mpi_enabled"
TORCHRUN = "sagemaker_torch_distributed_enabled"
PARAMETER_SERVER = "sagemaker_parameter_server_enabled"
MULTI_WORKER = "sagemaker_multi_worker_mirrored_strategy_enabled"

_TORCH = ("pytorch", "huggingface")
_SERVER = """
import json, os, sys
import tensorflow as tf
cluster, index = json.loads(sys.argv[1]), int(sys.argv[2])
no_gpu = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
tf.distribute.Server(tf.train.ClusterSpec(cluster), job_name="ps", task_index=index, config=no_gpu).join()
"""


class Launch(NamedTuple):
    """The command that runs the script on this host, and the variables that it gets besides the job's.

    No command: the first host runs the script here as well, and has ended.
    """

    command: List[str]
    variables: Mapping[str, str] = {}


@contextlib.contextmanager
def launch(script: Script, python: str, environ: Mapping[str, str]) -> Iterator[Launch]:
    """Give the :class:`Launch` of *script* with *python* and *environ*; what runs beside it ends with the block.

    Raises:
        RendezvousError: the hosts of the job did not meet.
    """
    environment, parameters = script.environment, script.parameters
    plain = script.command(python)
    several = len(environment.hosts) > 1
    if parameters.get(MPI):
        with _mpi(script, python, plain, environ) as how:
            yield how
        return
    if script.framework == "tensorflow" and several:
        if parameters.get(MULTI_WORKER):
            yield Launch(plain, {"TF_CONFIG": json.dumps(_multi_worker(environment))})
            return
        if parameters.get(PARAMETER_SERVER):
            with _parameter_server(environment, python) as config:
                yield Launch(plain, {"TF_CONFIG": json.dumps(config)})
            return
    if script.framework in _TORCH:
        yield _pytorch(script, python, plain)
        return
    yield Launch(plain)


def _pytorch(script: Script, python: str, plain: List[str]) -> Launch:
    environment = script.environment
    port = _ports(environment, 1)[environment.hosts[0]][0]
    variables = {
        "MASTER_ADDR": environment.hosts[0],
        "MASTER_PORT": str(port),
        "NCCL_SOCKET_IFNAME": environment.network_interface,
        "GLOO_SOCKET_IFNAME": environment.network_interface,
    }
    if not script.parameters.get(TORCHRUN) or script.is_command:
        return Launch(plain, variables)
    torchrun = [
        python, "-m", "torch.distributed.run",
        "--nnodes", str(len(environment.hosts)),
        "--nproc_per_node", str(max(1, gpu_count(os.environ))),
        "--master_addr", _reachable(environment.hosts[0]),
        "--master_port", str(port),
        "--node_rank", str(environment.rank),
    ]  # fmt: skip
    return Launch([*torchrun, *plain[1:]], variables)


def torchrun_defaults(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that let a ``torchrun`` of the job's own take a free port, and not the one that all take."""
    if environ.get("SAGESMITH_FRAMEWORK") not in _TORCH:
        return {}
    return {"PET_MASTER_PORT": str(_free_ports(1)[0])}


def _reachable(host: str) -> str:
    """Return *host*, or its address if this container cannot resolve the name (it has no /etc/hosts of its own)."""
    import socket  # these imports would delay every script by some milliseconds

    try:
        socket.gethostbyname(host)
    except OSError:
        from sagesmith_toolkit.rendezvous import address_of

        with contextlib.suppress(OSError):
            return address_of(host)
    return host


@contextlib.contextmanager
def _mpi(script: Script, python: str, plain: List[str], environ: Mapping[str, str]) -> Iterator[Launch]:
    from sagesmith_toolkit import mpi

    environment = script.environment
    command = mpi.mpirun_command(environment, script.parameters, plain, python)
    if len(environment.hosts) == 1:
        yield Launch(command)
        return
    with contextlib.ExitStack() as stack:
        meeting = stack.enter_context(_meeting(environment))
        variables = stack.enter_context(mpi.remote_shells(environment, meeting, script.code_dir, environ))
        yield Launch(command if environment.is_leader else [], variables)


# ---- TensorFlow --------------------------------------------------------------------------------------------


def tf_config(cluster: Mapping[str, Sequence[str]], kind: str, index: int) -> Dict[str, Any]:
    """Return what ``TF_CONFIG`` says to task *index* of *kind*."""
    return {"cluster": dict(cluster), "environment": "cloud", "task": {"type": kind, "index": index}}


def _multi_worker(environment: Environment) -> Dict[str, Any]:
    ports = _ports(environment, 1)
    workers = ["%s:%d" % (_reachable(host), ports[host][0]) for host in environment.hosts]
    config = tf_config({"worker": workers}, "worker", environment.rank)
    del config["environment"]  # as in SageMaker's containers, where only parameter servers have it
    return config


@contextlib.contextmanager
def _parameter_server(environment: Environment, python: str) -> Iterator[Dict[str, Any]]:
    """Run this host's parameter server, and give the configuration of its worker; the first host's is the master."""
    import subprocess

    with _meeting(environment) as meeting:
        ports = _exchanged_ports(environment, meeting, 2)
        addresses = [
            ["%s:%d" % (_reachable(host), port) for port in ports[host]] for host in environment.hosts
        ]
        cluster = {
            "master": [addresses[0][0]],
            "worker": [own for own, _ in addresses[1:]],
            "ps": [server for _, server in addresses],
        }
        server = subprocess.Popen([python, "-c", _SERVER, json.dumps(cluster), str(environment.rank)])
        try:
            if environment.is_leader:
                yield tf_config(cluster, "master", 0)
            else:
                yield tf_config(cluster, "worker", environment.rank - 1)
            meeting.exchange(b"")  # one host's script may need the servers of all until it ends
        finally:
            server.kill()
            server.wait()


# ---- hosts ------------------------------------------------------------------------------------------------


def _ports(environment: Environment, count: int) -> Dict[str, List[int]]:
    """Return *count* free ports for each host; every host gets the same answer."""
    if len(environment.hosts) == 1:
        return {environment.current_host: _free_ports(count)}
    with _meeting(environment) as meeting:
        return _exchanged_ports(environment, meeting, count)


def _exchanged_ports(environment: Environment, meeting: Rendezvous, count: int) -> Dict[str, List[int]]:
    answers = meeting.exchange(json.dumps(_free_ports(count)).encode())
    return {host: json.loads(answers[rank]) for rank, host in enumerate(environment.hosts)}


def _meeting(environment: Environment) -> Rendezvous:
    from sagesmith_toolkit import rendezvous  # most jobs have one host

    job = environment.job_arn or environment.job_name
    return rendezvous.Rendezvous(environment.hosts, environment.current_host, job, timeout_s=900.0)


def _free_ports(count: int) -> List[int]:
    """Return ports that nothing on this machine listens on now."""
    import socket

    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
