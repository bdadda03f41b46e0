"""Instance types by rule: ``ml.{family}.{size}`` gives vCPUs, memory and GPUs.

Within a family, memory grows with the vCPUs, and a size names the number of vCPUs (``xlarge`` is 4,
``{n}xlarge`` is 4 n, ``large`` is 2). So a family is one row here; what breaks the rule (burstable and GPU
families, ``metal``) is listed. ``serverless.{n}MB`` is a serverless endpoint's container. A generation that AWS adds to a known family letter is therefore known already.

Source: the public tables of instance types and of SageMaker's instances; memory in GiB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from sagesmith.errors import validation_error
from sagesmith.fleet.api import InstanceShape

__all__ = ["clamp", "describe"]

_GIB: Final = 1024**3


class _Size(NamedTuple):
    vcpus: int
    memory_gib: float
    gpus: int = 0


_NAME: Final = re.compile(r"ml\.(?P<family>[a-z]+\d+[a-z]*(?:-[a-z]+\d*)?)\.(?P<size>[a-z0-9-]+)")
_SERVERLESS: Final = re.compile(r"serverless\.(?P<megabytes>\d{4})MB")
_MB_PER_VCPU: Final = 1769  # what AWS gives to its serverless functions
_XLARGE: Final = re.compile(r"(?P<count>[1-9]\d?)?xlarge")

# GiB per vCPU, by the letters before the generation, for the families that follow the rule.
_GIB_PER_VCPU: Final[Mapping[str, float]] = {"c": 2, "m": 4, "r": 8, "i": 8, "x": 16}
_GENERATIONS: Final = re.compile(
    r"(?P<letter>[cmrix])(?P<generation>[3-9])(?P<kind>|[adgi]|a[dn]|d[n]?|e[dn]|g[dn]|i[den]|id[n]|i-flex|n|flex)"
)
_GRAPHICS: Final = re.compile(r"g(?:4dn|[5-9]e?)")
_GRAPHICS_GPUS: Final[Mapping[str, int]] = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_METAL_VCPUS: Final = 96
_EXCEPTIONS: Final[Mapping[str, Mapping[str, float]]] = {
    # The fourth generation's memory per vCPU is not a round number.
    "c4": {"large": 3.75, "xlarge": 7.5, "2xlarge": 15, "4xlarge": 30, "8xlarge": 60},
    "r4": {
        "large": 15.25, "xlarge": 30.5, "2xlarge": 61, "4xlarge": 122, "8xlarge": 244, "16xlarge": 488,
    },
    "c5n": {"large": 5.25, "xlarge": 10.5, "2xlarge": 21, "4xlarge": 42, "9xlarge": 96, "18xlarge": 192},
}  # fmt: skip
_VCPU_EXCEPTIONS: Final[Mapping[tuple[str, str], int]] = {
    ("c4", "8xlarge"): 36,
    ("m4", "10xlarge"): 40,
    ("m4", "16xlarge"): 64,
}

_BURSTABLE: Final[Mapping[str, _Size]] = {
    "nano": _Size(2, 0.5), "micro": _Size(2, 1), "small": _Size(2, 2), "medium": _Size(2, 4),
    "large": _Size(2, 8), "xlarge": _Size(4, 16), "2xlarge": _Size(8, 32),
}  # fmt: skip

_ACCELERATED: Final[Mapping[str, Mapping[str, _Size]]] = {
    "p2": {"xlarge": _Size(4, 61, 1), "8xlarge": _Size(32, 488, 8), "16xlarge": _Size(64, 732, 16)},
    "p3": {"2xlarge": _Size(8, 61, 1), "8xlarge": _Size(32, 244, 4), "16xlarge": _Size(64, 488, 8)},
    "p3dn": {"24xlarge": _Size(96, 768, 8)},
    "p4d": {"24xlarge": _Size(96, 1152, 8)},
    "p4de": {"24xlarge": _Size(96, 1152, 8)},
    "p5": {"4xlarge": _Size(16, 256, 1), "48xlarge": _Size(192, 2048, 8)},
    "p5e": {"48xlarge": _Size(192, 2048, 8)},
    "p5en": {"48xlarge": _Size(192, 2048, 8)},
    "p6-b200": {"48xlarge": _Size(192, 2048, 8)},
    "p6-b300": {"48xlarge": _Size(192, 4096, 8)},
    "p6e-gb200": {"36xlarge": _Size(144, 960, 4)},
    "dl1": {"24xlarge": _Size(96, 768, 8)},
    "trn1": {"2xlarge": _Size(8, 32), "32xlarge": _Size(128, 512)},
    "trn1n": {"32xlarge": _Size(128, 512)},
    "trn2": {"48xlarge": _Size(192, 2048)},
    "inf1": {"xlarge": _Size(4, 8), "2xlarge": _Size(8, 16), "6xlarge": _Size(24, 48), "24xlarge": _Size(96, 192)},
    "inf2": {"xlarge": _Size(4, 16), "8xlarge": _Size(32, 128), "24xlarge": _Size(96, 384), "48xlarge": _Size(192, 768)},
}  # fmt: skip


def describe(instance_type: str) -> InstanceShape:
    """Return what *instance_type* has on AWS.

    Raises:
        AwsError: `ValidationException`, there is no such type.
    """
    serverless = _SERVERLESS.fullmatch(instance_type)
    if serverless:
        megabytes = int(serverless["megabytes"])
        return InstanceShape(vcpus=max(1, round(megabytes / _MB_PER_VCPU)), memory_bytes=megabytes * 1024**2)
    match = _NAME.fullmatch(instance_type)
    size = _size(match["family"], match["size"]) if match else None
    if size is None:
        raise validation_error(
            f"1 validation error detected: Value '{instance_type}' at 'instanceType' failed to satisfy constraint: "
            "Member must be a SageMaker instance type such as ml.m5.xlarge."
        )
    return InstanceShape(vcpus=size.vcpus, memory_bytes=int(size.memory_gib * _GIB), gpus=size.gpus)


def clamp(shape: InstanceShape, machine: InstanceShape) -> InstanceShape:
    """Return *shape* made to fit the *machine*: never more than there is."""
    return InstanceShape(
        vcpus=min(shape.vcpus, machine.vcpus),
        memory_bytes=min(shape.memory_bytes, machine.memory_bytes),
        gpus=min(shape.gpus, machine.gpus),
    )


def _size(family: str, size: str) -> _Size | None:
    if family in _ACCELERATED:
        return _ACCELERATED[family].get(size)
    if family in ("t2", "t3", "t3a", "t4g"):
        return _BURSTABLE.get(size)
    if _GRAPHICS.fullmatch(family) and _XLARGE.fullmatch(size):
        vcpus = _vcpus(size)
        return _Size(vcpus, vcpus * (8 if family.endswith("e") else 4), _GRAPHICS_GPUS.get(size, 1))
    known = _GENERATIONS.fullmatch(family)
    if not known:
        return None
    vcpus = _VCPU_EXCEPTIONS.get((family, size)) or _vcpus(size)
    if not vcpus:
        return None
    exceptions = _EXCEPTIONS.get(family)
    if exceptions is not None:
        return _Size(vcpus, exceptions[size]) if size in exceptions else None
    return _Size(vcpus, vcpus * _GIB_PER_VCPU[known["letter"]])


def _vcpus(size: str) -> int:
    if size == "large":
        return 2
    if size == "medium":
        return 1
    if size.startswith("metal"):
        return _METAL_VCPUS
    match = _XLARGE.fullmatch(size)
    return 4 * int(match["count"] or 1) if match else 0
