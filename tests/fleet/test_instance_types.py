import botocore.session
import pytest

from sagesmith.errors import AwsError
from sagesmith.fleet.api import InstanceShape
from sagesmith.fleet.instance_types import clamp, describe

GIB = 1024**3


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gib", "gpus"),
    [
        ("ml.m5.xlarge", 4, 16, 0),
        ("ml.m4.xlarge", 4, 16, 0),
        ("ml.m5.large", 2, 8, 0),
        ("ml.c5.9xlarge", 36, 72, 0),
        ("ml.c4.8xlarge", 36, 60, 0),
        ("ml.r5.2xlarge", 8, 64, 0),
        ("ml.t2.medium", 2, 4, 0),
        ("ml.t3.2xlarge", 8, 32, 0),
        ("ml.g4dn.12xlarge", 48, 192, 4),
        ("ml.g5.2xlarge", 8, 32, 1),
        ("ml.g6e.48xlarge", 192, 1536, 8),
        ("ml.p3.2xlarge", 8, 61, 1),
        ("ml.p4d.24xlarge", 96, 1152, 8),
        ("ml.m7i.48xlarge", 192, 768, 0),
    ],
)
def test_a_type_is_what_it_is_on_aws(name: str, vcpus: int, memory_gib: float, gpus: int) -> None:
    assert describe(name) == InstanceShape(vcpus, int(memory_gib * GIB), gpus)


@pytest.mark.parametrize(
    "shape", ["TrainingInstanceType", "ProductionVariantInstanceType", "TransformInstanceType"]
)
def test_every_type_of_the_service_model_is_known(shape: str) -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    names: list[str] = getattr(model.shape_for(shape), "enum")  # noqa: B009
    for name in names:
        assert describe(name).vcpus > 0, name


@pytest.mark.parametrize(
    "name", ["", "m5.xlarge", "ml.m5", "ml.m5.huge", "ml.q5.xlarge", "ml.c4.3xlarge", "local"]
)
def test_an_unknown_type_is_refused(name: str) -> None:
    with pytest.raises(AwsError, match="failed to satisfy constraint") as caught:
        describe(name)
    assert caught.value.code == "ValidationException"


def test_no_instance_is_larger_than_the_machine() -> None:
    machine = InstanceShape(2, 8 * GIB, 0)
    assert clamp(describe("ml.g5.48xlarge"), machine) == machine
    assert clamp(describe("ml.t3.nano"), machine) == InstanceShape(2, GIB // 2, 0)
