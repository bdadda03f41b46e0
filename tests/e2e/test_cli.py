"""The command line as its users type it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

from tests.e2e.served import Served, wait_until


def test_status_env_and_credentials(served: Served) -> None:
    data = json.loads(served.command("status", "--json").stdout)
    assert data["running"] is True
    assert data["url"] == served.url
    assert data["memory_bytes"] > 0
    exports = served.command("env").stdout.splitlines()
    assert all(line.startswith("export ") for line in exports)
    names = {line.removeprefix("export ").partition("=")[0] for line in exports}
    assert {
        "AWS_ENDPOINT_URL",
        "AWS_CA_BUNDLE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
    } <= names
    mode = stat.S_IMODE((served.home / "credentials.json").stat().st_mode)
    assert mode == 0o600
    assert stat.S_IMODE((served.home / "authority" / "ca-key.pem").stat().st_mode) == 0o600


def test_env_is_enough_for_boto3(served: Served) -> None:
    script = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    shell = f'eval "$({sys.executable.rsplit("/", 1)[0]}/sagesmith env --home {served.home})"; "{sys.executable}" -c "{script}"'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == served.account


def test_run_catches_hard_coded_hosts(served: Served) -> None:
    """The official SDKs name STS's host in their code; `run` brings such calls here as well."""
    script = (
        "import boto3, json;"
        "sts = boto3.client('sts', region_name='eu-west-1', endpoint_url='https://sts.eu-west-1.amazonaws.com');"
        "print(json.dumps([sts.get_caller_identity()['Account'],"
        " boto3.client('s3', endpoint_url='https://s3.eu-west-1.amazonaws.com').list_buckets()['Owner'] is not None]))"
    )
    done = served.command("run", "--", sys.executable, "-c", script)
    assert json.loads(done.stdout) == [served.account, True]


def test_run_passes_the_exit_code_on(served: Served) -> None:
    assert served.command("run", "--", "sh", "-c", "exit 7", check=False).returncode == 7


def test_coverage(served: Served) -> None:
    data = json.loads(subprocess.run(
        [sys.executable.rsplit("/", 1)[0] + "/sagesmith", "coverage", "--json"],
        check=True, capture_output=True, text=True,
    ).stdout)  # fmt: skip
    assert len(data["sagemaker"]) >= 400
    assert data["sagemaker"]["CreateTrainingJob"] == "real"
    assert data["sagemaker-runtime"]["InvokeEndpoint"] == "real"
    assert set(data["sagemaker"].values()) <= {"real", "record-only", "missing"}


def test_doctor(served: Served) -> None:
    done = served.command("doctor", check=False)
    assert done.returncode == 0, done.stdout
    assert "Sandbox" in done.stdout


def test_up_twice_says_so(served: Served) -> None:
    done = served.command("up", "--detach")
    assert "already runs" in done.stderr


def test_commands_without_a_server_say_what_to_do(tmp_path: os.PathLike[str]) -> None:
    sagesmith = sys.executable.rsplit("/", 1)[0] + "/sagesmith"
    for command in (["env"], ["run", "--", "true"]):
        verb, *rest = command
        done = subprocess.run(
            [sagesmith, verb, "--home", str(tmp_path), *rest], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "sagesmith up" in done.stderr
        assert "Traceback" not in done.stderr


def test_servers_side_by_side(served: Served) -> None:
    other = Served(settings={"account_id": "999988887777"})
    try:
        other.up()
        other.client("s3").create_bucket(Bucket="only-there")
        assert other.client("sts").get_caller_identity()["Account"] == "999988887777"
        buckets = {b["Name"] for b in served.client("s3").list_buckets()["Buckets"]}
        assert "only-there" not in buckets
        other.down()
        wait_until(lambda: not other.processes(), timeout_s=10, what="no process left")
        other.up()
        assert {b["Name"] for b in other.client("s3").list_buckets()["Buckets"]} == {"only-there"}
    finally:
        other.remove()
    assert served.client("sts").get_caller_identity()["Account"] == served.account
