"""Image references taken apart: ``registry/repository:tag@digest``.

A reference is only parsed here, by the grammar of the distribution project. Whether its registry is one of
ECR's decides nothing but how a fault is worded: what runs is the business of the catalog.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sagesmith.errors import validation_error

__all__ = ["Reference"]

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::\d{1,5})?"
)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ECR: Final = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn|amazonaws\.eu"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference. `registry` is empty for a short one; `tag` is ``latest`` where none is given.

    `account` and `region` are those of an ECR registry, otherwise empty.
    """

    registry: str
    repository: str
    tag: str
    digest: str = ""
    account: str = ""
    region: str = ""

    @property
    def is_ecr(self) -> bool:
        """True if the registry's host name is one of Amazon ECR's, in any partition."""
        return bool(self.account)

    @classmethod
    def parse(cls, uri: str) -> Reference:
        """Take *uri* apart.

        Raises:
            AwsError: `ValidationException`, *uri* is not an image reference.
        """
        registry, rest = _split_registry(uri)
        rest, _, digest = rest.partition("@")
        repository, _, tag = rest.partition(":")
        ecr = _ECR.fullmatch(registry)
        valid = (
            _REPOSITORY.fullmatch(repository)
            and (not registry or _REGISTRY.fullmatch(registry))
            and (not tag or _TAG.fullmatch(tag))
            and (not digest or _DIGEST.fullmatch(digest))
            and not uri.endswith((":", "@"))
            and not rest.endswith(":")
            and (ecr is not None or ".dkr.ecr." not in registry)
        )
        if not valid:
            raise validation_error(
                f'ECR image "{uri}" is invalid. An image looks like '
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/repository:tag."
            )
        return cls(
            registry=registry,
            repository=repository,
            tag=tag or ("" if digest else "latest"),
            digest=digest,
            account=ecr["account"] if ecr else "",
            region=ecr["region"] if ecr else "",
        )


def _split_registry(uri: str) -> tuple[str, str]:
    """The first component is a registry if it looks like a host: it has a dot or a port, or is localhost."""
    first, slash, rest = uri.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return "", uri
