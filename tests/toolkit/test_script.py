"""Script mode on plain folders: arguments, variables, entry points, failures; also on the oldest Python."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

import sagesmith_toolkit
from sagesmith_toolkit.environment import Environment
from sagesmith_toolkit.failures import ExecuteUserScriptError
from sagesmith_toolkit.script import Script, arguments
from tests.clients.environments import EnvironmentUnavailableError, find_python

SOURCE = Path(sagesmith_toolkit.__file__).parent.parent


def oldest_python() -> str:
    """A Python 3.8, or none."""
    try:
        return str(find_python("3.8"))
    except EnvironmentUnavailableError:
        return ""


PYTHONS = [
    sys.executable,
    pytest.param(
        oldest_python(), marks=pytest.mark.skipif(not oldest_python(), reason="there is no Python 3.8")
    ),
]


class Job:
    """A folder that stands for /opt/ml."""

    def __init__(self, base: Path, python: str) -> None:
        self.base, self.python = base, python
        for name in ("input/config", "input/data/train", "output", "model", "code"):
            (base / name).mkdir(parents=True)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), "utf-8")

    def start(self, hyperparameters: Mapping[str, object], **environ: str) -> subprocess.Popen[str]:
        config = {
            "hyperparameters": {name: json.dumps(value) for name, value in hyperparameters.items()},
            "inputdataconfig": {"train": {"TrainingInputMode": "File"}},
            "resourceconfig": {
                "current_host": "algo-1",
                "hosts": ["algo-1"],
                "current_instance_type": "ml.m5.large",
            },
        }
        self.write({f"input/config/{name}.json": json.dumps(value) for name, value in config.items()})
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "SAGEMAKER_BASE_DIR": str(self.base),
            "TRAINING_JOB_NAME": "job",
            "TMPDIR": str(self.base),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }
        return subprocess.Popen(
            [self.python, "-m", "sagesmith_toolkit", "train"],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, hyperparameters: Mapping[str, object], **environ: str) -> tuple[int, str, str]:
        """Run the job; return exit code, standard output and standard error."""
        process = self.start(hyperparameters, **environ)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text("utf-8")


@pytest.fixture(params=PYTHONS, ids=["this", "3.8"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path / "ml", request.param)


SHOW = """
import json, os, sys
json.dump({"argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ)}, open(os.environ["SM_MODEL_DIR"] + "/told", "w"))
"""


def test_a_script_is_told_everything(job: Job) -> None:
    job.write({"code/train.py": SHOW})
    code, out, err = job.run(
        {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": "s3://bucket/sourcedir.tar.gz",
            "sagemaker_job_name": "job",
            "n_clusters": 3,
            "rate": 0.1,
            "name": "a b",
            "flag": True,
            "layers": [1, 2],
            "more": {"b": 1, "a": [2]},
            "k": 5,
        }
    )
    assert (code, err) == (0, "")
    assert "Invoking user script" in out
    told = json.loads((job.base / "model" / "told").read_text())
    assert told["argv"] == [
        "train.py", "--flag", "True", "-k", "5", "--layers", "[1, 2]", "--more", '{"a":[2],"b":1}', "--n_clusters", "3",
        "--name", "a b", "--rate", "0.1",
    ]  # fmt: skip
    assert told["cwd"] == str(job.base / "code")
    env = told["env"]
    assert env["SM_CHANNEL_TRAIN"] == str(job.base / "input/data/train")
    assert env["SM_MODEL_DIR"] == str(job.base / "model")
    assert env["SM_OUTPUT_DATA_DIR"] == str(job.base / "output/data")
    assert (env["SM_CHANNELS"], env["SM_HOSTS"], env["SM_CURRENT_HOST"]) == (
        '["train"]',
        '["algo-1"]',
        "algo-1",
    )
    assert (env["SM_HP_NAME"], env["SM_HP_LAYERS"], env["SM_HP_K"]) == ("a b", "[1,2]", "5")
    assert json.loads(env["SM_HPS"])["more"] == {"b": 1, "a": [2]}
    assert json.loads(env["SM_USER_ARGS"]) == told["argv"][1:]
    assert (env["SM_MODULE_NAME"], env["SM_USER_ENTRY_POINT"]) == ("train", "train.py")
    assert env["SM_MODULE_DIR"] == "s3://bucket/sourcedir.tar.gz"
    assert env["SM_CURRENT_INSTANCE_TYPE"] == "ml.m5.large"
    whole = json.loads(env["SM_TRAINING_ENV"])
    assert whole["channel_input_dirs"] == {"train": env["SM_CHANNEL_TRAIN"]}
    assert whole["is_master"] is True
    assert (job.base / "output" / "success").exists()


@pytest.mark.parametrize(
    "name",
    [
        "SM_HOSTS", "SM_CURRENT_HOST", "SM_CURRENT_INSTANCE_TYPE", "SM_CURRENT_INSTANCE_GROUP",
        "SM_CURRENT_INSTANCE_GROUP_HOSTS", "SM_INSTANCE_GROUPS", "SM_INSTANCE_GROUPS_DICT",
        "SM_DISTRIBUTION_INSTANCE_GROUPS", "SM_IS_HETERO", "SM_NETWORK_INTERFACE_NAME", "SM_HPS",
        "SM_USER_ENTRY_POINT", "SM_USER_ARGS", "SM_FRAMEWORK_PARAMS", "SM_FRAMEWORK_MODULE", "SM_RESOURCE_CONFIG",
        "SM_INPUT_DATA_CONFIG", "SM_INPUT_DIR", "SM_INPUT_CONFIG_DIR", "SM_OUTPUT_DIR", "SM_OUTPUT_DATA_DIR",
        "SM_OUTPUT_INTERMEDIATE_DIR", "SM_MODEL_DIR", "SM_MODULE_DIR", "SM_MODULE_NAME", "SM_CHANNELS",
        "SM_NUM_CPUS", "SM_NUM_GPUS", "SM_NUM_NEURONS", "SM_LOG_LEVEL", "SM_TRAINING_ENV",
    ],
)  # fmt: skip
def test_every_variable_is_there(name: str, tmp_path: Path) -> None:
    assert name in Script.read(Environment(tmp_path), {}).variables()


def test_a_failing_script_says_why(job: Job) -> None:
    job.write(
        {
            "code/train.py": "import sys\nprint('noise', file=sys.stderr)\nraise ValueError('no such label: 7')\n"
        }
    )
    code, _, err = job.run({"sagemaker_program": "train.py", "n": 1})
    assert code == 1
    assert "noise" in err
    assert job.failure.startswith('ExecuteUserScriptError:\nExitCode 1\nErrorMessage "Traceback (most recent')
    assert "ValueError: no such label: 7" in job.failure
    assert job.failure.endswith('train.py -n 1"')


def test_the_last_lines_of_a_long_failure_are_kept() -> None:
    reason = str(ExecuteUserScriptError(3, "x" * 5000 + " the end", ["python", "y" * 5000]))
    assert len(reason) <= 1000
    assert ' the end"\nCommand "python yyy' in reason


def test_the_exit_code_is_the_scripts(job: Job) -> None:
    job.write({"code/train.py": "raise SystemExit(37)"})
    assert job.run({"sagemaker_program": "train.py"})[0] == 37


def test_a_shell_script_gets_quoted_arguments(job: Job) -> None:
    job.write({"code/go.sh": '#!/bin/sh\nprintf "%s|" "$@" > "$SM_MODEL_DIR/told"\n'})
    assert job.run({"sagemaker_program": "go.sh", "name": "a b; c"})[0] == 0
    assert (job.base / "model" / "told").read_text() == "--name|a b; c|"


def test_without_an_entry_point_it_says_what_is_missing(job: Job) -> None:
    assert job.run({})[0] == 1
    assert "sagemaker_program is missing" in job.failure


def test_an_archive_in_a_channel_is_unpacked(job: Job) -> None:
    archive = job.base / "input/data/code/sourcedir.tar.gz"
    archive.parent.mkdir()
    pack(archive, {"train.py": SHOW, "lib/part.py": ""})
    assert job.run({"sagemaker_program": "train.py", "sagemaker_submit_directory": str(archive)})[0] == 0
    assert (job.base / "code/lib/part.py").exists()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "link/escaped"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    job = Job(tmp_path / "ml", sys.executable)
    archive = job.base / "sourcedir.tar.gz"
    pack(archive, {name: "x"}, link=("link", ".."))
    assert job.run({"sagemaker_program": "train.py", "sagemaker_submit_directory": str(archive)})[0] == 1
    assert job.failure.startswith("ClientError: ")
    assert not (job.base / "escaped").exists()


BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "mine-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.write("mine.py")
        wheel.writestr("mine-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1\\n")
        wheel.writestr("mine-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("mine-1.dist-info/RECORD", "")
    return name
"""


def test_a_package_is_installed_beside_the_environment(tmp_path: Path) -> None:
    job = Job(tmp_path / "ml", sys.executable)
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    job.write({"code/setup.py": "", "code/pyproject.toml": build, "code/backend.py": BACKEND})
    job.write({"code/mine.py": SHOW + "import numpy\nprint(sys.prefix, numpy.__file__)\n"})
    code, out, err = job.run({"sagemaker_program": "mine.py", "n": 1}, PIP_NO_INDEX="1")
    assert code == 0, err
    told = json.loads((job.base / "model" / "told").read_text())
    assert told["argv"][1:] == ["-n", "1"]
    prefix, numpy = out.splitlines()[-2].split()
    assert prefix.startswith(str(job.base))
    assert numpy.startswith(sys.prefix)
    assert importlib.util.find_spec("mine") is None


def test_a_command_of_the_jobs_own_gets_a_python_it_can_add_to(tmp_path: Path) -> None:
    script = "import sys, numpy; print(sys.prefix, numpy.__file__, sys.path)"
    command = [sys.executable, "-m", "sagesmith_toolkit", "run", "/bin/sh", "-c", f"python -c '{script}'"]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    prefix, numpy, _ = done.stdout.split(maxsplit=2)
    assert prefix.startswith(str(tmp_path))
    assert numpy.startswith(sys.prefix)
    gone = subprocess.run(
        [*command[:4], "/no/such/program"], env=environ, capture_output=True, text=True, check=False
    )
    assert (gone.returncode, "Traceback" in gone.stderr) == (127, False)


def test_requirements_that_cannot_be_had_fail_the_job(tmp_path: Path) -> None:
    job = Job(tmp_path / "ml", sys.executable)
    job.write({"code/train.py": "", "code/requirements.txt": "no-such-package==1\n"})
    code, _, _ = job.run({"sagemaker_program": "train.py"}, PIP_NO_INDEX="1")
    assert code == 1
    assert job.failure.startswith("InstallRequirementsError:\nExitCode 1\n")
    assert "no-such-package==1" in job.failure


def test_sigterm_reaches_the_script(job: Job) -> None:
    job.write(
        {
            "code/train.py": """
            import os, signal, sys, time
            def save(*_):
                open(os.environ["SM_MODEL_DIR"] + "/saved", "w").close()
                sys.exit(0)
            signal.signal(signal.SIGTERM, save)
            open(os.environ["SM_MODEL_DIR"] + "/began", "w").close()
            time.sleep(60)
            """
        }
    )
    process = job.start({"sagemaker_program": "train.py"})
    deadline = time.monotonic() + 20
    while not (job.base / "model" / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert (job.base / "model" / "saved").exists()


def test_old_names_of_scikit_learn_lead_to_the_new_ones(tmp_path: Path) -> None:
    job = Job(tmp_path / "ml", sys.executable)
    script = """
    import pickle
    from sklearn.externals import joblib
    import sklearn.externals.joblib as again, joblib as new
    from sklearn.externals.joblib import dump
    from sklearn.cross_validation import train_test_split
    assert joblib is new and again is new and dump is new.dump
    assert joblib.__spec__.name == "joblib"
    import sklearn.externals.joblib.numpy_pickle as old
    assert old.__name__ == "joblib.numpy_pickle"
    """
    job.write({"code/train.py": dedent(script)})
    code, _, err = job.run({"sagemaker_program": "train.py"})
    assert code == 0, err


def test_arguments_of_nothing_are_none() -> None:
    assert arguments({}) == []


def pack(archive: Path, files: Mapping[str, str], link: tuple[str, str] | None = None) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        if link is not None:
            entry = tarfile.TarInfo(link[0])
            entry.type, entry.linkname = tarfile.SYMTYPE, link[1]
            tar.addfile(entry)
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
