"""Endpoints at work: the gateway that carries invocations, and the driver that keeps instances behind it."""

from sagesmith.hosting.endpoints import Endpoints
from sagesmith.hosting.gateway import Gateway
from sagesmith.hosting.parts import Parts

__all__ = ["Endpoints", "Gateway", "Parts"]
