"""`sagesmith images` on a home without a server."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

SAGESMITH = Path(sys.executable).with_name("sagesmith")


def sagesmith(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SAGESMITH_HOME": str(home), "SAGESMITH_IMAGES_FOLDER": str(home / "images")}
    return subprocess.run(
        [SAGESMITH, "images", *arguments], env=environ, capture_output=True, text=True, check=False
    )


def test_the_version_that_sagesmith_has_needs_no_building(tmp_path: Path) -> None:
    version = ".".join(importlib.metadata.version("scikit-learn").split(".")[:2])
    done = sagesmith(tmp_path, "build", f"sagemaker-scikit-learn:{version}-1")
    assert (done.returncode, done.stdout.strip()) == (0, sys.prefix), done.stderr
    assert json.loads(sagesmith(tmp_path, "list", "--json").stdout) == []
    assert sagesmith(tmp_path, "prune").stdout == ""


def test_an_image_without_an_environment_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for image, words in (
        ("kmeans:1", "no environment of its own"),
        ("sagemaker-scikit-learn:new", "is invalid"),
    ):
        done = sagesmith(tmp_path, "build", image)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
