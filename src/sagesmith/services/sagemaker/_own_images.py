"""Whether an image of the user's own can be run: there is an engine, and it has the image or can get it.

Asked when a job or model is made, as SageMaker does; what happens to the image later shows when it is run.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from sagesmith.aws.call import Call
from sagesmith.containers import Engine, EngineError, find_image
from sagesmith.errors import AwsError, validation_error
from sagesmith.images import Image, Reference
from sagesmith.store.registry import Registry, place_of

__all__ = ["OwnImages"]

_PULL: Final = "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer"


class OwnImages:
    """Knows the engine of this machine and the registry of this server."""

    def __init__(self, registry: Registry, engine: Engine | None = None) -> None:
        self._registry = registry
        self._engine = engine or Engine()

    def check(self, call: Call, image: Image, role_arn: str) -> None:
        """Return if *image* can be run, or needs no engine.

        Raises:
            AwsError: `ValidationException`.
        """
        if image.runtime != "docker":
            return
        try:
            here = find_image(self._engine, image.uri)
        except EngineError as error:
            raise validation_error(
                f'The image "{image.uri}" is a container of your own, which needs Docker: {error}. Start Docker on the '
                "server's machine, or use the image of a built-in algorithm or framework, which needs none."
            ) from None
        reference = Reference.parse(image.uri)
        if reference.registry == urlsplit(call.endpoint_url).netloc or reference.is_ecr:
            fault = self._fault(call, reference, image.uri, role_arn)
        else:
            # Whatever is not named by its registry is not looked for elsewhere: a typing error must not run a stranger's.
            fault = None if reference.registry else _not_found(image.uri)
        if fault is not None and not here:
            raise fault

    def _fault(self, call: Call, reference: Reference, uri: str, role_arn: str) -> AwsError | None:
        """Why the registry of this server cannot give the image; None if it can."""
        region, name = reference.region or call.region, reference.repository
        if not reference.is_ecr:
            region, name = place_of(name, self._registry.region)
        repository = self._registry.locate(region, name)
        if repository is None:
            return validation_error(
                f"Cannot find repository: {name} in registry ID: {reference.account or call.account} Please check if "
                f"your ECR repository exists and role {role_arn} has proper pull permissions for SageMaker: {_PULL}"
            )
        found = self._registry.manifest(repository, reference.digest or reference.tag)
        return None if found is not None else _not_found(uri)


def _not_found(uri: str) -> AwsError:
    return validation_error(
        f"Requested image {uri} not found. Push it to a repository of this server's ECR, or give it that name in the "
        "Docker engine."
    )
