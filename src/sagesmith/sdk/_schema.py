"""The names of the columns that a model was trained with, kept beside it.

A model knows positions, people know names. What `fit` saw is written as a small JSON object into S3; a tag on
the job and on the endpoint says where, so that another process, another day, can send its columns in order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from sagesmith.sdk._errors import SdkError
from sagesmith.sdk._upload import ObjectWriter, read_object

if TYPE_CHECKING:
    from sagesmith.sdk._session import Session

__all__ = ["TAG", "Schema"]

TAG: Final = "sagesmith:columns"


@dataclass(frozen=True, slots=True)
class Schema:
    """`features` in the model's order; None if the data had no names. `target` is the label's column."""

    features: tuple[str, ...] | None = None
    target: str | None = None
    uri: str = ""

    def save(self, session: Session, uri: str) -> Self:
        """Write it to *uri* and return it with that."""
        with ObjectWriter(session, uri) as file:
            file.write(json.dumps({"features": self.features, "target": self.target}).encode())
        return type(self)(self.features, self.target, uri)

    @classmethod
    def load(cls, session: Session, uri: str) -> Schema:
        """Return what was saved at *uri*; an empty schema if it cannot be read."""
        try:
            data = json.loads(read_object(session, uri))
        except (SdkError, ValueError):
            return cls()
        features = data.get("features")
        return cls(None if features is None else tuple(features), data.get("target"), uri)

    @classmethod
    def of(cls, session: Session, arn: str) -> Schema:
        """Return the schema that a tag of the resource *arn* names; an empty one if none does."""
        try:
            tags: Sequence[dict[str, Any]] = session.call("sagemaker", "list_tags", ResourceArn=arn)["Tags"]
        except SdkError:
            return cls()
        uri = next((tag["Value"] for tag in tags if tag["Key"] == TAG), None)
        return cls() if uri is None else cls.load(session, uri)
