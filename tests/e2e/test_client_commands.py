"""Training and serving from the command line, as its users type it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sagesmith.cli import main
from tests.e2e.served import SAGESMITH, Served, free_port


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame["a"] > 0).astype(int)
    path = tmp_path_factory.mktemp("data") / "data.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def job(served: Served, data: Path) -> str:
    done = served.command(
        "train", "xgboost", str(data), "--target", "y", "-p", "objective=binary:logistic", "-p", "num_round=5"
    )
    assert "Completed" in done.stderr
    return done.stdout.strip()


def test_train_deploy_predict_and_remove(served: Served, data: Path, job: str) -> None:
    listed = served.command("jobs", "--name", job).stdout.split()
    assert listed[:3] == [job, "training", "Completed"]
    assert "train-logloss" in served.command("logs", job, "-n", "1").stdout
    endpoint = served.command("deploy", job, "--name", f"{job[:40]}-e").stdout.strip()
    assert [endpoint, "InService"] == served.command("endpoints", "--name", endpoint).stdout.split()[:2]
    rows = list(csv.DictReader(io.StringIO(served.command("predict", endpoint, str(data)).stdout)))
    truth = [int(row["y"]) for row in csv.DictReader(data.open())]
    assert np.mean([(float(row["prediction"]) > 0.5) == y for row, y in zip(rows, truth, strict=True)]) > 0.9
    lines = served.command("predict", endpoint, "-", "--json", input=data.read_text()).stdout.splitlines()
    assert json.loads(lines[0])["prediction"] == pytest.approx(float(rows[0]["prediction"]), rel=1e-14)
    taken = served.command("deploy", job, "--name", endpoint, check=False)
    assert (taken.returncode, taken.stdout) == (1, "")
    assert "already" in taken.stderr
    assert served.command("logs", endpoint).returncode == 0
    served.command("rm", endpoint)
    assert served.command("endpoints", "--name", endpoint, "--json").stdout.strip() == "[]"


def test_a_transform_job_is_followed_to_its_end(served: Served, data: Path, job: str) -> None:
    name = served.command("transform", job, str(data), "--no-wait").stdout.strip()
    assert "MaxConcurrentTransforms" in served.command("logs", name, "-f").stdout
    assert served.command("stop", name).stderr.strip() == f"{name}: Completed"
    assert served.command("jobs", "--name", name).stdout.split()[:3] == [name, "transform", "Completed"]


def test_json_tells_what_a_program_wants(served: Served, job: str) -> None:
    (found,) = json.loads(served.command("jobs", "--json", "--name", job).stdout)
    assert (found["Name"], found["Status"]) == (job, "Completed")
    assert found["Arn"].endswith(job)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "xgboost", "DATA", "-t", "why"), 1, "no column 'why'. Its columns are a, b, c, y."),
        (("train", "xgboost", "DATA"), 1, "needs a label"),
        (("train", "xgbost", "DATA", "-t", "y"), 1, "Did you mean 'xgboost'?"),
        (("train", "xgboost", "DATA", "-t", "y", "-p", "num_rounds=1"), 1, "did you mean 'num_round'?"),
        (("train", "xgboost", "nowhere.csv", "-t", "y"), 1, "no file or folder nowhere.csv"),
        (("train", "xgboost", "DATA", "-t", "y", "-p", "eta"), 2, "NAME=VALUE"),
        (("train", "xgboost", "DATA", "-t", "a", "-p", "objective=binary:logistic"), 4, "from 0 to 1"),
        (("train", "xgboost", "DATA", "-t", "y", "--name", "JOB"), 1, "already"),
        (("deploy", "nothing"), 1, "no training job and no model 'nothing'"),
        (("train", "xgboost", "DATA", "-t", "y", "--name", "a name"), 1, "'a name' cannot be a trainingJobName"),
        (("jobs", "--status", "Done"), 2, "Invalid value for '--status'"),
        (("predict", "nothing", "DATA"), 1, "no endpoint 'nothing'"),
        (("logs", "nothing"), 1, "'nothing'"),
        (("stop", "nothing"), 1, "'nothing'"),
        (("rm", "nothing"), 1, "'nothing'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(
    served: Served, data: Path, job: str, arguments: tuple[str, ...], code: int, words: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Run in this process: starting Python for each would take most of the time."""
    verb, *given = [{"DATA": str(data), "JOB": job}.get(argument, argument) for argument in arguments]
    monkeypatch.setattr("sys.argv", ["sagesmith", verb, "--home", str(served.home), *given])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    assert words in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"AWS_ENDPOINT_URL": "PORT", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
            "sagesmith up",
        ),
        ({"AWS_ENDPOINT_URL": "URL", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, "not known"),
        ({"AWS_ENDPOINT_URL": "URL", "AWS_CA_BUNDLE": ""}, "AWS_CA_BUNDLE"),
        ({"SAGESMITH_HOME": "/nonexistent"}, "sagesmith up"),
    ],
)
def test_a_server_that_cannot_be_used(served: Served, environment: dict[str, str], words: str) -> None:
    given = {"PORT": f"https://127.0.0.1:{free_port()}", "URL": served.url}
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SAGESMITH_HOME"))
    }
    variables |= {
        "AWS_CA_BUNDLE": served.ca_file,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    variables |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    variables |= {key: given.get(value, value) for key, value in environment.items()}
    done = subprocess.run(
        [SAGESMITH, "endpoints"], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
