"""Amazon resource names: ``arn:{partition}:{service}:{region}:{account}:{resource}``."""

from __future__ import annotations

from dataclasses import dataclass

from sagesmith.errors import validation_error

__all__ = ["Arn", "partition_of"]


def partition_of(region: str) -> str:
    """Return the partition (`aws`, `aws-cn`, `aws-us-gov`, ...) that *region* belongs to."""
    if region.startswith("cn-"):
        return "aws-cn"
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    if region.startswith("us-isob-"):
        return "aws-iso-b"
    if region.startswith("us-iso-"):
        return "aws-iso"
    return "aws"


@dataclass(frozen=True, slots=True)
class Arn:
    """One resource name, taken apart. `region` and `account` are empty for services without them."""

    service: str
    region: str
    account: str
    resource: str
    partition: str = "aws"

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"

    @property
    def kind(self) -> str:
        """The part of the resource before the first slash or colon, such as `training-job`."""
        return self.resource.replace(":", "/", 1).partition("/")[0]

    @property
    def name(self) -> str:
        """The part of the resource after the first slash or colon; empty if there is none."""
        return self.resource.replace(":", "/", 1).partition("/")[2]

    @classmethod
    def parse(cls, text: str) -> Arn:
        """Take *text* apart.

        Raises:
            AwsError: `ValidationException`, if *text* is not an ARN.
        """
        parts = text.split(":", 5)
        if len(parts) != 6 or parts[0] != "arn":
            raise validation_error(
                f"Invalid ARN '{text}': it must look like arn:aws:service:region:account:resource."
            )
        return cls(partition=parts[1], service=parts[2], region=parts[3], account=parts[4], resource=parts[5])
