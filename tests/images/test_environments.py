"""Environments: built once whoever asks, anew if interrupted, never removed while in use."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from sagesmith.images import BuildFailed, Environments, PythonEnvironment
from sagesmith.images._installer import (
    Unavailable,
    install_arguments,
    installer_variables,
    own_environment_has,
)


def nothing_own(_: object) -> bool:
    return False


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environments:
    """Environments that are never Sagesmith's own, and are built from what is at hand, without an index."""
    monkeypatch.setattr("sagesmith.images._environments.own_environment_has", nothing_own)
    _distribution(tmp_path / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    return Environments(tmp_path / "images")


def _distribution(folder: Path) -> None:
    """Write a wheel of a tiny package."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "VALUE = 7\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")


TINY = PythonEnvironment("tiny-1.0", ("tiny==1.0",), modules=("tiny",))


def test_it_is_built_once_and_found_afterwards(environments: Environments) -> None:
    said: list[str] = []
    assert environments.find(TINY) is None
    use = environments.make(TINY, said.append)
    assert said[0].startswith("Building the environment tiny-1.0 (tiny==1.0)")
    assert said[-1].startswith("The environment tiny-1.0 is ready")
    script = "import tiny, sagesmith_toolkit; print(tiny.VALUE)"
    answer = subprocess.run(
        [f"{use.prefix}/bin/python", "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "7\n"
    found = environments.find(TINY)
    assert found is not None
    assert found.prefix == use.prefix
    again: list[str] = []
    environments.make(TINY, again.append).release()
    assert again == []
    assert environments.find(PythonEnvironment("tiny-1.0", ("tiny==1.0", "other"))) is None


def test_two_that_want_it_at_once_build_it_once(environments: Environments) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda: environments.make(TINY, said.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(line.startswith("Building") for line in said) == 1
    assert sum(line.startswith("Waiting") for line in said) == 2


def test_what_was_interrupted_is_built_anew(environments: Environments) -> None:
    use = environments.make(TINY, ignore)
    use.release()
    prefix = use.prefix
    Path(prefix, "environment.json").unlink()
    Path(prefix, "half").touch()
    assert environments.find(TINY) is None
    assert environments.make(TINY, ignore).prefix == prefix
    assert not Path(prefix, "half").exists()


def test_a_build_that_fails_says_what_failed(environments: Environments) -> None:
    with pytest.raises(
        BuildFailed, match=r"The environment absent could not be built: uv ended.*absent"
    ) as caught:
        environments.make(PythonEnvironment("absent", ("absent==1",)), ignore)
    assert "exit code" in str(caught.value)
    with pytest.raises(BuildFailed, match="no_such_module"):
        environments.make(PythonEnvironment("wrong", ("tiny",), modules=("no_such_module",)), ignore)


def test_the_nearest_stands_in_for_what_cannot_be_had(environments: Environments) -> None:
    wanted = PythonEnvironment("tiny-2.0", ("tiny==2.0",), nearest=TINY)
    said: list[str] = []
    use = environments.make(wanted, said.append)
    assert any(line.startswith("The environment tiny-2.0 cannot be had here: uv ended") for line in said)
    assert use.note.endswith("this job runs with the nearest that can: tiny 1.0.")
    found = environments.find(wanted)
    assert found is not None
    assert (found.prefix, found.note) == (use.prefix, use.note)
    tiny = environments.make(TINY, ignore)
    assert found.prefix == tiny.prefix
    assert [each.name for each in environments.all()] == ["tiny-1.0"]
    for each in (use, found, tiny):
        each.release()
    shutil.rmtree(use.prefix)
    assert environments.find(wanted) is None
    again = environments.make(wanted, ignore)
    assert (again.prefix, again.note) == (use.prefix, use.note)


def test_builds_of_torch_in_a_folder_come_before_pytorchs_index(tmp_path: Path) -> None:
    python, machine = f"cp{sys.version_info.major}{sys.version_info.minor}", platform.machine()
    for version in ("2.5.1+cpu", "2.13.0+cpu"):
        (tmp_path / f"torch-{version}-{python}-{python}-manylinux_2_28_{machine}.whl").touch()
    (tmp_path / f"torch-2.14.0-cp27-cp27-manylinux_2_28_{machine}.whl").touch()
    here = {"UV_FIND_LINKS": str(tmp_path)}
    assert install_arguments(("torch", "torchvision", "numpy<2"), here, "cpu") == [
        "torch==2.13.0+cpu",
        "numpy<2",
    ]
    assert install_arguments(("torch==2.5.*",), here, "cpu") == ["torch==2.5.1+cpu"]
    with pytest.raises(Unavailable, match=r"torch==2.6.\* is not among .* 2.13.0\+cpu, 2.5.1\+cpu"):
        install_arguments(("torch==2.6.*",), here, "cpu")
    assert install_arguments(("torch==2.6.*", "torchvision"), {}, "cpu") == [
        "torch==2.6.*", "torchvision", "--torch-backend", "cpu",
    ]  # fmt: skip
    assert install_arguments(("torch",), {}, "") == ["torch"]
    assert install_arguments(("numpy",), {}, "cpu") == ["numpy"]


def test_waiting_and_building_end_when_told_to(environments: Environments) -> None:
    with pytest.raises(BuildFailed, match="told to stop"):
        environments.make(TINY, ignore, stop=lambda: True)


def test_pruning_leaves_what_is_in_use_or_was_used_lately(environments: Environments) -> None:
    use = environments.make(TINY, ignore)
    assert [(each.name, each.in_use) for each in environments.all()] == [("tiny-1.0", True)]
    assert environments.prune() == []
    use.release()
    assert environments.prune(unused_s=3600) == []
    assert environments.prune() == [TINY.folder_name]
    assert environments.all() == []


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        (("numpy",), True),
        (("numpy>=1", "pip<1000"), True),
        (("numpy<1",), False),
        (("numpy==0.1.*",), False),
        (("no-such-distribution",), False),
        (("numpy @ file:///x",), False),
    ],
)
def test_what_sagesmiths_own_environment_has(requirements: tuple[str, ...], expected: bool) -> None:
    assert own_environment_has(requirements) is expected


def test_what_pip_is_told_uv_is_told(tmp_path: Path) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text(
        "[global]\nindex-url = https://j\nextra-index-url =\n  https://k\n  https://l\nquiet = 1\n"
    )
    told = installer_variables(
        {"PIP_FIND_LINKS": "/wheels /more", "PIP_INDEX_URL": "https://i", "PYTHONPATH": "/x"}, [conf]
    )
    assert (told["UV_FIND_LINKS"], told["UV_DEFAULT_INDEX"]) == ("/wheels,/more", "https://i")
    assert told["UV_INDEX"] == "https://k https://l"
    assert "PYTHONPATH" not in told
    conf.write_text("no section")
    assert "UV_INDEX" not in installer_variables({"UV_FIND_LINKS": "/mine"}, [conf, tmp_path / "absent"])


def ignore(_: str) -> None:
    """Say nothing."""
