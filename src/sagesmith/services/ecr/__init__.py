"""Amazon ECR: repositories, their images, and the registry to which `docker push` and `docker pull` speak."""

from __future__ import annotations

from sagesmith.clock import Clock, system_clock
from sagesmith.services.ecr._distribution import Distribution
from sagesmith.services.ecr._images import Images
from sagesmith.services.ecr._repositories import Repositories
from sagesmith.services.ecr._settings import RepositorySettings
from sagesmith.store.identities import Identities
from sagesmith.store.registry import Registry
from sagesmith.store.resources import Resources

__all__ = ["Distribution", "handlers"]


def handlers(
    registry: Registry, resources: Resources, identities: Identities, *, clock: Clock = system_clock
) -> list[object]:
    """Return the handlers of the operations that have behaviour."""
    return [
        Repositories(registry, resources, identities, clock=clock),
        RepositorySettings(registry, resources),
        Images(registry),
    ]
