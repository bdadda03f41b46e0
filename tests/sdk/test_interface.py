"""What is exported, what importing costs, and that the declarations agree with the algorithms."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sagesmith
from sagesmith import sdk
from sagesmith.sdk import Estimator, HyperparameterUnknown, KMeans, SdkError
from sagesmith.sdk._catalog import FRAMEWORKS, framework_image, image_uri
from tests.sdk import declarations


def test_every_exported_name_is_there() -> None:
    for module in (sagesmith, sdk):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no_such"):
            _ = module.no_such
    assert sorted(sdk.__all__) == sorted(name for names in sdk._MODULES.values() for name in names)
    assert set(sagesmith.__all__) - {"__version__"} <= set(sdk.__all__)


def test_importing_costs_nothing_before_use() -> None:
    heavy = ["numpy", "pandas", "boto3", "botocore", "rich", "scipy", "pyarrow", "sqlalchemy"]
    code = (
        "import sys; from sagesmith import Estimator, Session, KMeans, Predictor, SKLearn;"
        f"print([m for m in {heavy!r} if m in sys.modules], [m for m in sys.modules if m.startswith('sagesmith.') "
        "and not m.startswith('sagesmith.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[] []"


def test_the_types_are_those_of_the_declarations() -> None:
    written = declarations.PLACE.read_text("utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "-"]
    done = subprocess.run(
        [*command, "--stdin-filename", str(declarations.PLACE)],
        input=declarations.text(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert written == done.stdout, "run `python -m tests.sdk.declarations`"


def test_hyperparameters_are_checked_before_anything_happens() -> None:
    with pytest.raises(HyperparameterUnknown, match="did you mean 'num_round'"):
        Estimator("xgboost", num_rounds=3)
    with pytest.raises(HyperparameterUnknown, match="needs 'k'"):
        KMeans()  # type: ignore[typeddict-item, call-arg, unused-ignore]
    with pytest.raises(SdkError, match="Did you mean 'xgboost'"):
        Estimator("xgbost")
    assert Estimator("xgboost", lambda_=2).hyperparameters == {"lambda": 2}


def test_images_are_aws_own() -> None:
    """Compared with what `sagemaker.image_uris.retrieve` of sagemaker 2.257 gives."""
    assert (
        image_uri("xgboost", "us-east-1")
        == "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
    )
    assert image_uri("kmeans", "eu-west-1") == "438346466558.dkr.ecr.eu-west-1.amazonaws.com/kmeans:1"
    assert image_uri("lda", "us-east-1") == "766337827248.dkr.ecr.us-east-1.amazonaws.com/lda:1"
    assert (
        image_uri("blazingtext", "us-east-1") == "811284229777.dkr.ecr.us-east-1.amazonaws.com/blazingtext:1"
    )
    assert image_uri("knn", "cn-north-1").startswith("390948362332.dkr.ecr.cn-north-1.amazonaws.com.cn/")
    with pytest.raises(SdkError, match="no image of LDA in af-south-1"):
        image_uri("lda", "af-south-1")
    names = {
        (name, instance, serving): framework_image(
            FRAMEWORKS[name], "us-east-1", instance_type=instance, serving=serving
        ).partition("/")[2]
        for name in FRAMEWORKS
        for instance in ("ml.m5.large", "ml.g5.xlarge")
        for serving in (False, True)
    }
    assert names["sklearn", "ml.m5.large", True] == "sagemaker-scikit-learn:1.2-1-cpu-py3"
    assert names["pytorch", "ml.g5.xlarge", False] == "pytorch-training:2.6.0-gpu-py312"
    assert names["tensorflow", "ml.m5.large", False] == "tensorflow-training:2.18.0-cpu-py310"
    assert names["tensorflow", "ml.m5.large", True] == "tensorflow-inference:2.18.0-cpu"
    assert names["mxnet", "ml.m5.large", True] == "mxnet-inference:1.9.0-cpu-py38"
    assert names["huggingface", "ml.g5.xlarge", False] == (
        "huggingface-pytorch-training:2.3.0-transformers4.48.0-gpu-py311-cu121-ubuntu20.04"
    )
    assert names["huggingface", "ml.m5.large", True] == (
        "huggingface-pytorch-inference:2.3.0-transformers4.48.0-cpu-py311-ubuntu22.04"
    )
