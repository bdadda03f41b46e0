"""Repository and tag decide what an image is; registry, account and region never do."""

import re

import pytest

from sagesmith.errors import AwsError
from sagesmith.images import code_uri, for_serving, for_training, resolve

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "uri",
    [
        "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1",
        "450853457545.dkr.ecr.cn-north-1.amazonaws.com.cn/sagemaker-xgboost:1.0-1-cpu-py3",
        "833128469047.dkr.ecr.us-iso-east-1.c2s.ic.gov/sagemaker-xgboost:3.0-5",
        "000000000000.dkr.ecr.mars-west-1.amazonaws.com/sagemaker-xgboost:3.2-0",
        "811284229777.dkr.ecr.us-east-1.amazonaws.com/xgboost:1",
        "811284229777.dkr.ecr.us-east-1.amazonaws.com/xgboost:latest",
    ],
)
def test_xgboost_is_xgboost_in_every_region_and_version(uri: str) -> None:
    image = resolve(uri)
    assert (image.kind, image.algorithm, image.runtime) == ("builtin", "xgboost", "process")
    assert image.train_command == ("python", "-m", "sagesmith_algorithms", "train")
    assert image.environment["SAGESMITH_ALGORITHM"] == "xgboost"


def test_the_metric_definitions_of_xgboost_match_its_log_lines() -> None:
    image = resolve("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1")
    line = "[12]#011train-rmse:0.25#011validation-rmse:0.5e-3"
    found = {
        name: float(match[1]) for name, regex in image.metric_definitions if (match := re.search(regex, line))
    }
    assert found == {"train:rmse": 0.25, "validation:rmse": 0.0005}


def test_the_metric_definitions_of_k_means_match_its_log_lines() -> None:
    image = resolve("382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1")
    assert image.algorithm == "kmeans"
    regexes = dict(image.metric_definitions)
    match = re.search(regexes["test:msd"], "#quality_metric: host=algo-1, test msd <loss>=3.25")
    assert match is not None
    assert match[1] == "3.25"


@pytest.mark.parametrize(
    ("tag", "requirement"),
    [
        ("0.20.0-cpu-py3", "scikit-learn==1."),
        ("0.23-1-cpu-py3", "scikit-learn==1."),
        ("1.4-2-py312", "scikit-learn==1.4.*"),
        ("1.9-0", "scikit-learn==1.9.*"),
    ],
)
def test_a_framework_image_has_the_environment_of_its_tag(tag: str, requirement: str) -> None:
    image = resolve(f"683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:{tag}")
    assert (image.kind, image.framework, image.runtime) == ("framework", "scikit-learn", "process")
    assert image.train_command == ("python", "-m", "sagesmith_toolkit", "train")
    assert image.python is not None
    assert image.python.requirements[0].startswith(requirement)
    assert bool(image.python.note) == tag.startswith("0.")


@pytest.mark.parametrize(
    ("image", "framework", "requirements"),
    [
        ("pytorch-training:2.8.0-cpu-py312", "pytorch", {"torch==2.8.*"}),
        ("pytorch-inference:2.6.0-gpu-py312-cu124-ubuntu22.04-sagemaker", "pytorch", {"torch==2.6.*"}),
        ("sagemaker-pytorch:0.4.0-cpu-py3", "pytorch", {"torch=="}),
        ("tensorflow-training:2.19.0-cpu-py312", "tensorflow", {"tensorflow", "==2.19.*"}),
        ("sagemaker-tensorflow-serving:1.11.0-cpu", "tensorflow", {"tensorflow"}),
        ("mxnet-inference:1.9.0-cpu-py38", "mxnet", {"mxnet==1.9.1", "numpy==1.23.5"}),
        (
            "huggingface-pytorch-inference:2.6.0-transformers4.49.0-cpu-py312-ubuntu22.04",
            "huggingface",
            {"torch==2.6.*", "transformers==4.49.*"},
        ),
    ],
)
def test_the_images_of_deep_learning_have_environments_too(
    image: str, framework: str, requirements: set[str]
) -> None:
    found = resolve(f"763104351884.dkr.ecr.eu-west-1.amazonaws.com/{image}")
    assert (found.kind, found.framework, found.runtime) == ("framework", framework, "process")
    assert found.environment == {"SAGESMITH_FRAMEWORK": framework}
    assert found.python is not None
    text = " ".join(found.python.requirements)
    assert all(part in text for part in requirements), text


def test_the_job_decides_what_the_image_of_xgboost_runs() -> None:
    image = resolve("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1")
    assert for_training(image, {"num_round": "5"}, ["train"]) is image
    assert for_serving(image, {"SAGEMAKER_PROGRAM": ""}) is image
    for script in (
        for_training(image, {"sagemaker_program": '"train.py"'}, ["train"]),
        for_training(image, {}, ["train", "code"]),
        for_serving(image, {"SAGEMAKER_PROGRAM": "inference.py"}),
    ):
        assert (script.kind, script.warm) == ("framework", "")
        assert script.serve_command == ("python", "-m", "sagesmith_toolkit", "serve")
        assert script.environment == {"SAGESMITH_FRAMEWORK": "xgboost"}
        assert script.python is not None
        assert script.python.requirements[0] == "xgboost==1.7.*"


def test_where_the_code_is_may_be_json_or_not() -> None:
    assert code_uri({"sagemaker_submit_directory": '"s3://b/k.tar.gz"'}) == "s3://b/k.tar.gz"
    assert code_uri({"sagemaker_submit_directory": "s3://b/k.tar.gz"}) == "s3://b/k.tar.gz"
    assert code_uri({"SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}) == ""
    assert code_uri({}) == ""


@pytest.mark.parametrize(
    "uri",
    [
        "xgboost:1",
        "my-image",
        "kmeans",
        "localhost:5000/team/model:v1",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/kmeans:1",
        f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/mine@{DIGEST}",
        "docker.io/library/pytorch:latest",
    ],
)
def test_everything_else_is_the_users_own_container(uri: str) -> None:
    image = resolve(uri)
    assert (image.kind, image.runtime, image.train_command) == ("user", "docker", ())


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "Not An Image",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/UPPER:1",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/xgboost:",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/../xgboost:1",
        "123.dkr.ecr.us-east-1.amazonaws.com/xgboost:1",
        "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:newest",
        "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:newest",
        "mine@sha256:abc",
        "x" * 10 + ":" + "t" * 129,
    ],
)
def test_a_malformed_uri_is_refused_in_the_words_of_aws(uri: str) -> None:
    with pytest.raises(AwsError, match=re.escape(f'ECR image "{uri}" is invalid')) as caught:
        resolve(uri)
    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("382416733822.dkr.ecr.us-east-1.amazonaws.com/seq2seq:1", "Sequence-to-Sequence"),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference-eia:1.5.1-cpu-py3", "PyTorch"),
        (
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.6.0-tgi3",
            "Hugging Face",
        ),
    ],
)
def test_an_image_that_is_known_but_cannot_run_yet_says_so(uri: str, name: str) -> None:
    with pytest.raises(AwsError, match=f"{name}.*not available"):
        resolve(uri)
