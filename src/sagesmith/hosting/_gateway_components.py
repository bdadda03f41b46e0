"""An inference component in the gateway's table: to requests that name it what an endpoint is to others.

Its variants' instances are its copies; its name is its endpoint's, its ARN and its metrics are its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sagesmith.arns import Arn, partition_of
from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_table import EMPTY, Endpoint, Variant
from sagesmith.store.metrics import Datum

__all__ = ["Component", "component_key"]

_PER_INSTANCE: Final = "InvocationsPerInstance"
_PER_COPY: Final = "InvocationsPerCopy"


def component_key(name: str) -> str:
    """Return the key of the component in the gateway's table: no endpoint has such a name."""
    return f"inference-component/{name}"


class Component(Endpoint):
    """An inference component of an endpoint."""

    def __init__(self, region: str, key: str, account: str, endpoint: str) -> None:
        super().__init__(region, endpoint, account)
        self.arn = str(Arn("sagemaker", region, account, key, partition_of(region)))
        self.component = key.partition("/")[2]

    def choose(self, target: str = "") -> Variant:
        """Return the variant whose turn it is.

        Raises:
            AwsError: as an endpoint's; `ValidationError`, the component was scaled to no copies.
        """
        variant = super().choose(target)
        if EMPTY in variant.features:
            # What scales a component out from nothing looks at this metric.
            variant.counters.note("NoCapacityInvocationFailures", "None", 1.0)
            raise errors.no_copies()
        return variant

    def metrics(self, data: list[Datum]) -> list[Datum]:
        """Return what is to be told of *data*, which a variant of this component counted: by component and by variant."""
        own = {"InferenceComponentName": self.component}
        return [
            *(datum for datum in data if datum.name != _PER_INSTANCE),
            *(
                replace(datum, dimensions=own, name=_PER_COPY if datum.name == _PER_INSTANCE else datum.name)
                for datum in data
            ),
        ]
