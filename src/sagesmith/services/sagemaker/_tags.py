"""AddTags, ListTags and DeleteTags, on whatever has an ARN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import validation_error
from sagesmith.services.sagemaker._tag_sets import check_count, tag_list, tag_set
from sagesmith.store.queries import decode_token, encode_token
from sagesmith.store.resources import Resources

__all__ = ["Tags"]

DEFAULT_PAGE: Final = 50


class Tags:
    """Tags of resources."""

    service = "sagemaker"

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @operation("AddTags")
    def add_tags(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add tags, or give those that are there new values."""
        arn = self._find(request["ResourceArn"])
        added = tag_set(request["Tags"])
        together = {**self._resources.tags(arn), **added}
        check_count(len(together))
        self._resources.tag(arn, added)
        return {"Tags": tag_list(together)}

    @operation("ListTags", inline=True)
    def list_tags(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return tags, sorted by key."""
        arn = self._find(request["ResourceArn"])
        tags = sorted(self._resources.tags(arn).items())
        if request.get("NextToken"):
            [after] = decode_token(request["NextToken"], arn.lower(), 1)
            tags = [tag for tag in tags if tag[0] > after]
        limit = request.get("MaxResults") or DEFAULT_PAGE
        output: dict[str, Any] = {"Tags": tag_list(dict(tags[:limit]))}
        if len(tags) > limit:
            output["NextToken"] = encode_token([tags[limit - 1][0]], arn.lower())
        return output

    @operation("DeleteTags")
    def delete_tags(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove tags; keys that are not there are no fault."""
        self._resources.untag(self._find(request["ResourceArn"]), request["TagKeys"])
        return {}

    def _find(self, arn: str) -> str:
        resource = self._resources.by_arn(arn)
        if resource is None:
            raise validation_error(f'Could not find resource "{arn}".')
        return resource.arn
