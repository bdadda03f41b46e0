"""The generic engine: Create, Describe, List, Update and Delete of any resource family.

The request document is the resource: Create stores the request as it came, members that this version does not
know included, and Describe gives it back with name, ARN and times. Members with a dollar sign are private.

Reads copy, they do not compute. The store keeps the document's text and, written with it, the text of its summary
(:func:`summaries` says of what); Describe is the one with its times appended, a list is others with commas between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sagesmith.aws import JsonText
from sagesmith.aws.call import Call
from sagesmith.errors import AwsError, validation_error
from sagesmith.services.sagemaker._kinds import KINDS, ResourceKind
from sagesmith.services.sagemaker._shapes import Shapes
from sagesmith.services.sagemaker._tag_sets import tag_set
from sagesmith.store.claims import LEASE_S
from sagesmith.store.documents import decode
from sagesmith.store.resources import (
    AlreadyExists,
    Change,
    ListQuery,
    Missing,
    Resource,
    Resources,
    Summarize,
)

__all__ = ["Engine", "is_page", "summaries"]

DEFAULT_PAGE: Final = 10
LARGEST_PAGE: Final = 100
_PAGING: Final = frozenset(("MaxResults", "NextToken", "SortBy", "SortOrder"))
_SORT_KEYS: Final[Mapping[str, str]] = {
    "Name": "name",
    "CreationTime": "created",
    "LastModifiedTime": "modified",
    "Status": "status",
}
_TIMES: Final[Mapping[str, str]] = {
    "CreationTimeAfter": "created_after",
    "CreatedAfter": "created_after",
    "CreationTimeBefore": "created_before",
    "CreatedBefore": "created_before",
    "LastModifiedTimeAfter": "modified_after",
    "ModifiedTimeAfter": "modified_after",
    "LastModifiedTimeBefore": "modified_before",
    "ModifiedTimeBefore": "modified_before",
}


class Engine:
    """What all resource families share. Thread-safe."""

    def __init__(self, resources: Resources, shapes: Shapes) -> None:
        self.resources = resources
        self.shapes = shapes

    # ---- one resource ----

    def create(
        self,
        call: Call,
        kind: ResourceKind,
        request: Mapping[str, Any],
        document: Mapping[str, Any],
        *,
        status: str = "",
        owner: str = "",
    ) -> Resource:
        """Store a new resource: *document* is what Describe will say, *request* has its name and tags.

        The driver named *owner* has the claim on it from the beginning, which saves it a transaction.

        Raises:
            AwsError: the name is taken, or the tags are not good.
        """
        name = request[kind.name_member]
        arn = call.arn(f"{kind.arn}/{name}")
        stored = {name_: value for name_, value in document.items() if name_ != "Tags"}
        stored[kind.arn_member] = arn
        self._sign(call, kind, stored, ("CreatedBy", "LastModifiedBy"))
        if kind.status and status:
            stored[kind.status] = status
        try:
            return self.resources.create(
                kind.arn,
                call.region,
                name,
                arn=arn,
                document=stored,
                status=status,
                tags=tag_set(request.get("Tags")),
                parent=_at(stored, kind.parent),
                owner=owner,
                lease_s=LEASE_S,
                why=f"{call.operation} by {call.caller.arn}",
            )
        except AlreadyExists:
            raise _error(kind.taken, name, arn) from None

    def check_free(self, call: Call, kind: ResourceKind, name: str) -> None:
        """Refuse early if the name is taken, before costly checks; `create` decides.

        Raises:
            AwsError: it is taken.
        """
        if self.resources.get(kind.arn, call.region, name) is not None:
            raise _error(kind.taken, name, call.arn(f"{kind.arn}/{name}"))

    def find(self, call: Call, kind: ResourceKind, name: str) -> Resource:
        """Return the resource of that name (or ARN, in upper or lower case).

        Raises:
            AwsError: there is none.
        """
        if name.startswith("arn:"):
            found = self.resources.by_arn(name)
            if found is not None and (found.kind != kind.arn or found.region != call.region):
                found = None
        else:
            found = self.resources.get(kind.arn, call.region, name)
        if found is None:
            raise self.absent(call, kind, name)
        return found

    def absent(self, call: Call, kind: ResourceKind, name: str) -> AwsError:
        """Return the error that says there is no resource of that name."""
        arn = name if name.startswith("arn:") else call.arn(f"{kind.arn}/{name}")
        return _error(kind.absent, name, arn)

    def describe(self, call: Call, kind: ResourceKind, request: Mapping[str, Any]) -> JsonText:
        """Return the resource that the request names, as Describe shows it."""
        name = request[kind.name_member]
        found = self.resources.text(kind.arn, call.region, name)
        if found is None:
            resource = self.find(call, kind, name)  # it is an ARN, or is not there
            found = resource.text, resource.created, resource.modified
        text, created, modified = found
        # Blobs are stored as {"$bytes": ...}. Looking for one character first is ten times as quick.
        if "$" in text and '"$bytes"' in text:
            text = JsonText.of(decode(text)).text
        times = f'"CreationTime":{created!r}'
        if "LastModifiedTime" in self.shapes.output(call.operation):
            times += f',"LastModifiedTime":{modified!r}'
        return JsonText(f"{text[:-1]},{times}}}")

    def update(
        self,
        call: Call,
        kind: ResourceKind,
        name: str,
        edit: Callable[[Resource], Change | None],
    ) -> Resource:
        """Change the resource by *edit* in one transaction; see `Resources.update`.

        Raises:
            AwsError: there is none of that name, or what *edit* raises.
        """
        try:
            return self.resources.update(
                kind.arn, call.region, name, edit, f"{call.operation} by {call.caller.arn}"
            )
        except Missing:
            raise self.absent(call, kind, name) from None

    def replace_members(self, call: Call, kind: ResourceKind, request: Mapping[str, Any]) -> Resource:
        """Update as families do that are only stored: what the request has replaces what was there.

        ``{Member}ToRemove`` takes keys out of a member.
        """
        found = self.find(call, kind, request[kind.name_member])

        def edit(resource: Resource) -> Change:
            document = dict(resource.document)
            for member, value in request.items():
                if member == kind.name_member:
                    continue
                if member.endswith("ToRemove"):
                    target = member.removesuffix("ToRemove")
                    gone = set(value)
                    document[target] = {k: v for k, v in document.get(target, {}).items() if k not in gone}
                elif member in kind.merged:
                    document[member] = {**document.get(member, {}), **value}
                else:
                    document[member] = value
            self._sign(call, kind, document, ("LastModifiedBy",))
            status = document.get("Status")
            return Change(status if isinstance(status, str) else None, document)

        return self.update(call, kind, found.name, edit)

    def delete(self, call: Call, kind: ResourceKind, request: Mapping[str, Any]) -> Resource:
        """Remove the resource that the request names and return what it was. Nothing that uses it prevents that."""
        while True:
            found = self.find(call, kind, request[kind.name_member])
            try:
                self.resources.delete(found, why=f"{call.operation} by {call.caller.arn}")
            except AwsError as error:
                if error.code != "ConflictException":
                    raise
            else:
                return found

    # ---- lists ----

    def list(self, call: Call, kind: ResourceKind, request: Mapping[str, Any]) -> JsonText:
        """Return the page of summaries that the request asks for."""
        member, _ = self.shapes.summaries(kind.list_operation)
        page = self.resources.summaries(kind.arn, call.region, _query(kind, request))
        rest = f',"NextToken":"{page.next_token}"' if page.next_token is not None else ""
        return JsonText(f'{{"{member}":[{",".join(page.items)}]{rest}}}')

    def _sign(
        self, call: Call, kind: ResourceKind, document: dict[str, Any], members: tuple[str, ...]
    ) -> None:
        """Write the caller into those *members* that the kind shows."""
        if kind.created_by:
            known = self.shapes.output(f"Describe{kind.noun}")
            user = {"IamIdentity": {"Arn": call.caller.arn, "PrincipalId": call.caller.user_id}}
            document.update({member: user for member in members if member in known})


def is_page(request: Mapping[str, Any]) -> bool:
    """Whether a list request filters nothing: each page of it is then read from one place of an index."""
    return request.keys() <= _PAGING


def summaries(shapes: Shapes) -> dict[str, Summarize]:
    """Return by kind what makes its summaries: the members of the document that the model has in one."""

    def summarize(kind: ResourceKind, resource: Resource) -> str:
        times = {"CreationTime": resource.created, "LastModifiedTime": resource.modified}
        document = {**resource.document, **times}
        _, members = shapes.summaries(kind.list_operation)
        return JsonText.of({name: document[name] for name in members if name in document}).text

    return {name: partial(summarize, kind) for name, kind in KINDS.items()}


def _query(kind: ResourceKind, request: Mapping[str, Any]) -> ListQuery:
    sort_by = request.get("SortBy") or kind.sort_by
    order = request.get("SortOrder")
    filters: dict[str, Any] = {
        ours: request[theirs] for theirs, ours in _TIMES.items() if request.get(theirs) is not None
    }
    return ListQuery(
        name_contains=request.get("NameContains") or "",
        status=request.get("StatusEquals") or "",
        parent=request.get(kind.parent_filter) if kind.parent_filter else None,
        where={
            document: request[asked]
            for asked, document in kind.equals.items()
            if request.get(asked) is not None
        },
        contains={
            **{document: request[asked] for asked, document in kind.contains.items() if request.get(asked)},
            **{
                document: json.dumps(request[asked])
                for asked, document in kind.has.items()
                if request.get(asked)
            },
        },
        sort_by=_SORT_KEYS[sort_by],  # type: ignore[arg-type]
        descending=kind.descending if order is None else order == "Descending",
        limit=min(request.get("MaxResults") or DEFAULT_PAGE, LARGEST_PAGE),
        token=request.get("NextToken") or None,
        **filters,
    )


def _at(document: Mapping[str, Any], path: str) -> str:
    value: Any = document
    for member in path.split(".") if path else ():
        value = value.get(member) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _error(words: tuple[str, str], name: str, arn: str) -> AwsError:
    code, message = words
    text = message.format(name=name, arn=arn)
    return validation_error(text) if code == "ValidationException" else AwsError(code, text)
