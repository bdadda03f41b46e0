"""From a model's details to the container that serves it: the same for endpoints and for transform jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.images import Image, for_serving
from sagesmith.instance.spec import ContainerSpec

__all__ = ["model_container", "model_image"]


def model_image(details: Mapping[str, Any], image: Image) -> Image:
    """Return what *image* is for the model: a built-in algorithm's may serve the user's own code."""
    return for_serving(image, details.get("environment", {}))


def model_container(
    details: Mapping[str, Any], image: Image, region: str, environment: Mapping[str, str] | None = None
) -> ContainerSpec:
    """Return the container that serves a model.

    Args:
        details: the model's, as endpoints and transform jobs keep them.
        image: from :func:`model_image`.
        region: where it believes to be.
        environment: more variables, above the model's own.
    """
    is_process = image.runtime == "process"
    return ContainerSpec(
        runtime=image.runtime,
        image=image.uri,
        command=image.serve_command if is_process else ("serve",),
        environment={
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "SAGEMAKER_REGION": region,
            **details.get("environment", {}),
            **(environment or {}),
            **image.environment,
        },
        network=not details.get("network_isolation", False),
        warm=image.warm,
        hostname=details.get("hostname", ""),
        python=image.python if image.kind == "framework" else None,
    )
