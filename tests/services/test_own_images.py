"""Images of the user's own are refused when they cannot be run, and say what to do. (With an engine: tests/e2e.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sagesmith.aws import Call, Caller
from sagesmith.containers import Engine
from sagesmith.errors import AwsError
from sagesmith.images import resolve
from sagesmith.services.sagemaker import OwnImages

CALLER = Caller("123456789012", "arn:aws:iam::123456789012:root", "root", "AKIA")
CALL = Call("sagemaker", "CreateModel", "us-east-1", "123456789012", CALLER, "r", 0.0)
ROLE = "arn:aws:iam::123456789012:role/Role"


@pytest.fixture
def own_images(tmp_path: Path) -> OwnImages:
    nothing: Any = None
    return OwnImages(nothing, Engine(str(tmp_path / "docker.sock")))


def test_without_docker_it_says_what_needs_none(own_images: OwnImages, tmp_path: Path) -> None:
    with pytest.raises(AwsError) as caught:
        own_images.check(CALL, resolve("my-image:1"), ROLE)
    assert caught.value.code == "ValidationException"
    assert caught.value.message == (
        'The image "my-image:1" is a container of your own, which needs Docker: the Docker engine does not answer at '
        f"{tmp_path}/docker.sock (No such file or directory). Start Docker on the server's machine, or use the image of "
        "a built-in algorithm or framework, which needs none."
    )


def test_built_in_images_need_no_docker(own_images: OwnImages) -> None:
    own_images.check(CALL, resolve("382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"), ROLE)
