"""Training jobs on real agents and containers, on a small control plane."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sagesmith.config import Settings
from sagesmith.containers import Sandbox
from sagesmith.instance.spec import (
    ChannelSpec,
    Exited,
    Finished,
    MergeArtifacts,
    MetricValue,
    Shutdown,
    Stop,
    Uploaded,
    Utilization,
)
from tests.fleet.world import FIRST, Ear, World, a_world

SANDBOX, REASON = Sandbox.find()
both_kinds = pytest.mark.parametrize(
    "world",
    [
        "none",
        pytest.param(
            "bubblewrap", marks=pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox here: {REASON}")
        ),
    ],
    indirect=True,
)


@pytest.fixture(params=["bubblewrap" if SANDBOX else "none"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with a_world(settings=Settings(warm_instances=0, sandbox=request.param)) as world:
        yield world


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: (tar.extractfile(m) or io.BytesIO()).read() if m.isfile() else b"" for m in tar}


BASE = "import os; B = os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml')\n"


@both_kinds
async def test_a_job_from_its_channel_to_its_artifacts(world: World) -> None:
    world.objects |= {
        "bucket/data/train/a.csv": b"1,2",
        "bucket/data/train/sub/b.csv": b"3",
        "bucket/data/": b"",
    }
    script = f"""
{BASE}
import json
config = {{n: json.load(open(f"{{B}}/input/config/{{n}}.json")) for n in ("hyperparameters", "inputdataconfig", "resourceconfig")}}
print(json.dumps(config, sort_keys=True))
print(open(f"{{B}}/input/data/train/a.csv").read(), open(f"{{B}}/input/data/train/sub/b.csv").read())
print("[1]\\ttrain-rmse:0.5\\tvalidation-rmse:1e-2")
print(os.environ["TRAINING_JOB_NAME"], os.environ["AWS_REGION"], os.environ["OMP_NUM_THREADS"], os.environ["MINE"])
open(f"{{B}}/model/weights", "w").write("w"); os.mkdir(f"{{B}}/model/sub"); open(f"{{B}}/model/sub/x", "w").write("x")
os.symlink("/etc/passwd", f"{{B}}/model/stolen"); os.symlink("weights", f"{{B}}/model/alias")
open(f"{{B}}/output/data/plot", "w").write("p")
"""
    task: dict[str, Any] = {
        "metric_definitions": (("validation:rmse", r".*\[[0-9]+\].*#011validation-rmse:(\S+)"),)
    }
    task["channels"] = (ChannelSpec("train", "s3://bucket/data/train", content_type="text/csv"),)
    ear = await world.run(world.spec(script, task=task, container={"environment": {"MINE": "yes"}}))

    assert ear.stages == ["Downloading", "Training", "Uploading"], ear.heard
    assert ear.all(Exited) == [Exited(0)]
    assert ear.heard[-1] == Finished()
    config = json.loads(ear.lines[0])
    assert config["hyperparameters"] == {"k": "3"}
    assert config["inputdataconfig"] == {
        "train": {
            "ContentType": "text/csv",
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    }
    assert config["resourceconfig"]["hosts"] == ["algo-1"]
    assert ear.lines[1:4] == ["1,2 3", "[1]#011train-rmse:0.5#011validation-rmse:1e-2", "job us-east-1 2 yes"]
    assert [(m.name, m.value) for m in ear.all(MetricValue)] == [("validation:rmse", 0.01)]
    assert any("stolen" in line and "outside" in line for line in ear.lines)
    model = members(world.objects["bucket/out/job/output/model.tar.gz"])
    assert model == {"alias": b"", "sub/x": b"x", "weights": b"w"}
    assert members(world.objects["bucket/out/job/output/output.tar.gz"]) == {"plot": b"p"}
    assert ear.all(Uploaded)[0].model_uri == "s3://bucket/out/job/output/model.tar.gz"
    assert not list(world.home.instances.iterdir())


async def test_a_failing_job_says_why_and_still_leaves_its_output(world: World) -> None:
    script = (
        BASE + "open(B + '/output/failure', 'w').write('x' * 2000); open(B + '/output/data/f', 'w'); exit(3)"
    )
    ear = await world.run(world.spec(script))
    assert ear.all(Exited) == [Exited(3, "x" * 1024)]
    assert ear.heard[-1] == Finished()
    assert "bucket/out/job/output/output.tar.gz" in world.objects
    assert "bucket/out/job/output/model.tar.gz" not in world.objects


@both_kinds
async def test_stop_lets_the_job_save_and_uploads_it(world: World) -> None:
    script = BASE + (
        "import signal, time\ndef end(*_):\n open(B + '/model/saved', 'w'); exit(0)\n"
        "signal.signal(15, end); print('ready'); time.sleep(60)"
    )
    ear = Ear()
    await world.fleet.start(world.spec(script), ear)
    await ear.until_line("ready")
    await ear.until(Utilization)
    await world.fleet.tell(FIRST, Stop(grace_s=20))
    await world.fleet.tell(FIRST, Stop(grace_s=20))
    await ear.until(Finished)
    assert ear.all(Exited) == [Exited(0, stopped=True)]
    assert members(world.objects["bucket/out/job/output/model.tar.gz"]) == {"saved": b""}


async def test_bad_input_data_is_the_clients_error(world: World) -> None:
    channels = (ChannelSpec("train", "s3://bucket/nothing-here"),)
    ear = await world.run(world.spec("print('never')", task={"channels": channels}))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert "No S3 objects found" in finished.error
    assert finished.client_error
    assert ear.lines == []


@both_kinds
async def test_two_hosts_meet_share_the_data_and_their_artifacts_become_one(world: World) -> None:
    world.objects |= {f"bucket/d/{i}": b"%d" % i for i in range(3)}
    world.objects["bucket/m.json"] = json.dumps([{"prefix": "s3://bucket/d/"}, "2", "0", "1"]).encode()
    script = (
        BASE
        + """
import json
from sagesmith_toolkit.rendezvous import Rendezvous
r = json.load(open(B + "/input/config/resourceconfig.json")); me = r["current_host"]
with Rendezvous(r["hosts"], me, "job") as meeting:
    print(meeting.exchange(me.encode()), meeting.leader_address[:4])
print(me, r["hosts"], sorted(os.listdir(B + "/input/data/train")))
open(B + "/model/same", "w").write(me); open(B + "/model/" + me, "w")
"""
    )
    hosts = ("algo-1", "algo-2")
    channel = ChannelSpec("train", "s3://bucket/m.json", "ManifestFile", "ShardedByS3Key")
    ears = [Ear(), Ear()]
    for number, ear in enumerate(ears):
        spec = world.spec(
            script,
            name=f"{FIRST}-{number}",
            owner_arn="arn:job",
            instance_type="ml.m5.24xlarge",
            hosts=hosts,
            host=hosts[number],
            task={"channels": (channel,)},
        )
        await world.fleet.start(spec, ear)
    parts = tuple([(await ear.until(Uploaded)).part_uri for ear in ears])
    assert [ear.lines[0] for ear in ears] == ["[b'algo-1', b'algo-2'] 127."] * 2
    assert [ear.lines[1] for ear in ears] == [
        "algo-1 ['algo-1', 'algo-2'] ['0', '2']",
        "algo-2 ['algo-1', 'algo-2'] ['1']",
    ]
    await world.fleet.tell(f"{FIRST}-0", MergeArtifacts(parts))
    await world.fleet.tell(f"{FIRST}-1", Shutdown())
    await asyncio.gather(*(ear.until(Finished) for ear in ears))
    merged = members(world.objects["bucket/out/job/output/model.tar.gz"])
    assert merged == {"algo-1": b"", "same": b"algo-1", "algo-2": b""}
    assert ears[0].all(Uploaded)[1].model_uri == "s3://bucket/out/job/output/model.tar.gz"
    assert any("same" in line and "first host" in line for line in ears[0].lines)
    assert not [key for key in world.objects if ".parts" in key]


async def test_checkpoints_come_back_and_go_out(world: World) -> None:
    world.objects["bucket/ckpt/epoch-1"] = b"one"
    script = (
        BASE
        + "print(open(B + '/checkpoints/epoch-1').read()); open(B + '/checkpoints/epoch-2', 'w').write('two')"
    )
    await world.run(world.spec(script, task={"checkpoint_uri": "s3://bucket/ckpt"}))
    assert world.objects["bucket/ckpt/epoch-2"] == b"two"


async def test_intermediate_output_is_seen_in_s3(world: World) -> None:
    script = BASE + "open(B + '/output/intermediate/chart.txt', 'w').write('so far'); raise SystemExit(3)"
    await world.run(world.spec(script))
    assert world.objects == {"bucket/out/job/output/intermediate/chart.txt": b"so far"}


async def test_without_compression_the_files_themselves_are_uploaded(world: World) -> None:
    script = BASE + "os.makedirs(B + '/model/a'); open(B + '/model/a/b', 'w').write('x')"
    ear = await world.run(world.spec(script, task={"compression": "NONE"}))
    assert world.objects == {"bucket/out/job/output/model/a/b": b"x"}
    assert ear.all(Uploaded)[0].model_uri == "s3://bucket/out/job/output/model/"


async def test_a_command_that_does_not_exist_ends_the_job(world: World) -> None:
    ear = await world.run(world.spec("", command=("/no/such/command",)))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert finished.client_error
    assert finished.error
