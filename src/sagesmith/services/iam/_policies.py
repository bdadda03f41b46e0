"""Operations on policies: managed ones with their versions, and what principals have attached, inline and as tags.

Attaching and inline policies exist for users, groups and roles alike, under operation names that differ by
that word only; `attachments`, `inline_policies`, `boundaries` and `tags` make the handlers of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.iam._answers import (
    Document,
    RoleBook,
    describe_policy,
    no_such_policy,
    page,
    policy_text,
    tag_list,
    tags_from,
)
from sagesmith.services.iam._documents import check_document
from sagesmith.services.iam._managed import managed_policies, managed_policy_document
from sagesmith.store.identities import Identities
from sagesmith.store.principals import ManagedPolicy, PolicyVersion, Principal, PrincipalKind

__all__ = ["ManagedPolicies", "attachments", "boundaries", "inline_policies", "tags"]

VERSIONS_PER_POLICY: Final = 5
_KINDS: Final[tuple[PrincipalKind, ...]] = ("user", "group", "role")
_MADE: Final = 1_423_000_000.0
"""When AWS's managed policies came into the world, for `CreateDate`."""


class ManagedPolicies:
    """CreatePolicy, GetPolicy, ListPolicies, DeletePolicy, their versions, tags, and who has them attached."""

    service = "iam"

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @operation("CreatePolicy")
    def create_policy(self, call: Call, request: Document) -> Document:
        """Make a managed policy."""
        check_document(request["PolicyDocument"])
        policy = self._identities.create_policy(
            request["PolicyName"],
            request["PolicyDocument"],
            path=request.get("Path", "/"),
            description=request.get("Description", ""),
            tags=tags_from(request),
        )
        return {"Policy": describe_policy(policy, 0)}

    @operation("GetPolicy")
    def get_policy(self, call: Call, request: Document) -> Document:
        """Return a managed policy without its document."""
        policy = self._find(request["PolicyArn"])
        return {"Policy": describe_policy(policy, len(self._holders(policy.arn)))}

    @operation("ListPolicies")
    def list_policies(self, call: Call, request: Document) -> Document:
        """Return managed policies of the account, of AWS, or both."""
        scope = request.get("Scope", "All")
        policies: list[ManagedPolicy] = []
        if scope in ("All", "Local"):
            policies += self._identities.policies()
        if scope in ("All", "AWS"):
            policies += [
                self._find(f"arn:{call.partition}:iam::aws:policy/{name}") for name in managed_policies()
            ]
        counts = self._counts()
        found = [
            policy
            for policy in policies
            if policy.path.startswith(request.get("PathPrefix", "/"))
            and (not request.get("OnlyAttached") or counts.get(policy.arn))
        ]
        return page(
            request,
            "Policies",
            found,
            lambda policy: policy.arn,
            lambda policy: describe_policy(policy, counts.get(policy.arn, 0), with_tags=False),
        )

    @operation("DeletePolicy")
    def delete_policy(self, call: Call, request: Document) -> None:
        """Delete a policy that is attached nowhere and has one version."""
        policy = self._own(request["PolicyArn"])
        if self._holders(policy.arn):
            raise AwsError("DeleteConflict", "Cannot delete a policy attached to entities.", status=409)
        if len(policy.versions) > 1:
            raise AwsError(
                "DeleteConflict",
                "This policy has more than one version. Before you delete a policy, you must delete the "
                "policy's versions. The default version is deleted with the policy.",
                status=409,
            )
        self._identities.delete_policy(policy.arn)

    @operation("CreatePolicyVersion")
    def create_policy_version(self, call: Call, request: Document) -> Document:
        """Add a version to a policy, and let it count if asked to."""
        check_document(request["PolicyDocument"])
        created = call.time

        def edit(policy: ManagedPolicy) -> ManagedPolicy:
            if len(policy.versions) >= VERSIONS_PER_POLICY:
                raise AwsError(
                    "LimitExceeded",
                    f"A managed policy can have up to {VERSIONS_PER_POLICY} versions. "
                    "Before you create a new version, you must delete an existing version.",
                    status=409,
                )
            number = policy.last_version + 1
            version = PolicyVersion(f"v{number}", request["PolicyDocument"], created)
            default = version.id if request.get("SetAsDefault") else policy.default
            return replace(policy, versions=(version, *policy.versions), default=default, last_version=number)

        self._own(request["PolicyArn"])
        policy = self._identities.change_policy(request["PolicyArn"], edit)
        shape = _describe_version(policy, policy.versions[0])
        del shape["Document"]
        return {"PolicyVersion": shape}

    @operation("GetPolicyVersion")
    def get_policy_version(self, call: Call, request: Document) -> Document:
        """Return one version with its document."""
        policy = self._find(request["PolicyArn"])
        return {"PolicyVersion": _describe_version(policy, _version(policy, request["VersionId"]))}

    @operation("ListPolicyVersions")
    def list_policy_versions(self, call: Call, request: Document) -> Document:
        """Return the versions of a policy without documents."""
        policy = self._find(request["PolicyArn"])

        def show(version: PolicyVersion) -> dict[str, Any]:
            shape = _describe_version(policy, version)
            del shape["Document"]
            return shape

        return page(request, "Versions", policy.versions, lambda version: version.id, show)

    @operation("SetDefaultPolicyVersion")
    def set_default_policy_version(self, call: Call, request: Document) -> None:
        """Let another version count."""
        self._own(request["PolicyArn"])
        self._identities.change_policy(
            request["PolicyArn"],
            lambda policy: replace(policy, default=_version(policy, request["VersionId"]).id),
        )

    @operation("DeletePolicyVersion")
    def delete_policy_version(self, call: Call, request: Document) -> None:
        """Delete a version that does not count."""

        def edit(policy: ManagedPolicy) -> ManagedPolicy:
            gone = _version(policy, request["VersionId"])
            if gone.id == policy.default:
                raise AwsError("DeleteConflict", "Cannot delete the default version of a policy.", status=409)
            return replace(policy, versions=tuple(v for v in policy.versions if v.id != gone.id))

        self._own(request["PolicyArn"])
        self._identities.change_policy(request["PolicyArn"], edit)

    @operation("ListEntitiesForPolicy")
    def list_entities_for_policy(self, call: Call, request: Document) -> Document:
        """Return the users, groups and roles that have a policy attached."""
        policy = self._find(request["PolicyArn"])
        wanted = request.get("EntityFilter")
        prefix = request.get("PathPrefix", "/")
        holders = [
            holder
            for holder in self._holders(policy.arn)
            if wanted in (None, holder.kind.capitalize()) and holder.path.startswith(prefix)
        ]
        shown = page(request, "Holders", holders, lambda holder: holder.arn, lambda holder: holder)
        for kind in _KINDS:
            word = kind.capitalize()
            shown[f"Policy{word}s"] = [
                {f"{word}Name": holder.name, f"{word}Id": holder.id}
                for holder in shown["Holders"]
                if holder.kind == kind
            ]
        del shown["Holders"]
        return shown

    @operation("TagPolicy")
    def tag_policy(self, call: Call, request: Document) -> None:
        """Add tags to a policy."""
        added = tags_from(request)
        self._own(request["PolicyArn"])
        self._identities.change_policy(
            request["PolicyArn"], lambda policy: replace(policy, tags={**policy.tags, **added})
        )

    @operation("UntagPolicy")
    def untag_policy(self, call: Call, request: Document) -> None:
        """Take tags off a policy."""
        keys = set(request["TagKeys"])
        self._own(request["PolicyArn"])
        self._identities.change_policy(
            request["PolicyArn"],
            lambda policy: replace(policy, tags={k: v for k, v in policy.tags.items() if k not in keys}),
        )

    @operation("ListPolicyTags")
    def list_policy_tags(self, call: Call, request: Document) -> Document:
        """Return the tags of a policy."""
        return _tag_page(request, self._find(request["PolicyArn"]).tags)

    def _find(self, arn: str) -> ManagedPolicy:
        text = managed_policy_document(arn)
        if text is not None:
            path, _, name = arn.partition(":policy")[2].rpartition("/")
            return ManagedPolicy(
                name=name,
                path=f"{path}/",
                id="ANPA" + name.upper().ljust(17, "X")[:17],
                arn=arn,
                created=_MADE,
                modified=_MADE,
                versions=(PolicyVersion("v1", text, _MADE),),
                default="v1",
            )
        policy = self._identities.policy(arn)
        if policy is None:
            raise AwsError("NoSuchEntity", f"Policy {arn} was not found.", status=404)
        return policy

    def _own(self, arn: str) -> ManagedPolicy:
        """Return the account's own policy of that ARN; AWS's cannot be changed."""
        if managed_policy_document(arn) is not None:
            raise AwsError(
                "AccessDenied", f"Policy {arn} is managed by AWS and cannot be changed.", status=403
            )
        return self._find(arn)

    def _principals(self) -> Iterator[Principal]:
        for kind in _KINDS:
            yield from self._identities.principals(kind)

    def _holders(self, arn: str) -> list[Principal]:
        return [principal for principal in self._principals() if arn in principal.attached]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for principal in self._principals():
            for arn in principal.attached:
                counts[arn] = counts.get(arn, 0) + 1
        return counts


def attachments(kind: PrincipalKind, book: RoleBook, policy_exists: Callable[[str], bool]) -> object:
    """Return the handlers of Attach..Policy, Detach..Policy and ListAttached..Policies for *kind*."""
    word = kind.capitalize()

    class Attachments:
        service = "iam"

        @operation(f"Attach{word}Policy")
        def attach(self, call: Call, request: Document) -> None:
            arn = request["PolicyArn"]
            if not policy_exists(arn):
                raise no_such_policy(arn)
            book.change(
                kind,
                request[f"{word}Name"],
                lambda principal: replace(
                    principal, attached=tuple(dict.fromkeys((*principal.attached, arn)))
                ),
            )

        @operation(f"Detach{word}Policy")
        def detach(self, call: Call, request: Document) -> None:
            arn = request["PolicyArn"]

            def edit(principal: Principal) -> Principal:
                if arn not in principal.attached:
                    raise AwsError("NoSuchEntity", f"Policy {arn} was not found.", status=404)
                return replace(principal, attached=tuple(a for a in principal.attached if a != arn))

            book.change(kind, request[f"{word}Name"], edit)

        @operation(f"ListAttached{word}Policies")
        def list_attached(self, call: Call, request: Document) -> Document:
            principal = book.find(kind, request[f"{word}Name"])
            prefix = request.get("PathPrefix", "/")
            arns = [arn for arn in principal.attached if arn.partition(":policy")[2].startswith(prefix)]
            return page(
                request,
                "AttachedPolicies",
                arns,
                lambda arn: arn,
                lambda arn: {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn},
            )

    return Attachments()


def inline_policies(kind: PrincipalKind, book: RoleBook) -> object:
    """Return the handlers of Put..Policy, Get..Policy, List..Policies and Delete..Policy for *kind*."""
    word = kind.capitalize()

    class InlinePolicies:
        service = "iam"

        @operation(f"Put{word}Policy")
        def put(self, call: Call, request: Document) -> None:
            check_document(request["PolicyDocument"])
            added = {request["PolicyName"]: request["PolicyDocument"]}
            book.change(
                kind,
                request[f"{word}Name"],
                lambda principal: replace(principal, inline={**principal.inline, **added}),
            )

        @operation(f"Get{word}Policy")
        def get(self, call: Call, request: Document) -> Document:
            principal = book.find(kind, request[f"{word}Name"])
            text = principal.inline.get(request["PolicyName"])
            if text is None:
                raise _no_inline(kind, request["PolicyName"])
            return {
                f"{word}Name": principal.name,
                "PolicyName": request["PolicyName"],
                "PolicyDocument": policy_text(text),
            }

        @operation(f"List{word}Policies")
        def list_names(self, call: Call, request: Document) -> Document:
            principal = book.find(kind, request[f"{word}Name"])
            return page(request, "PolicyNames", list(principal.inline), str, str)

        @operation(f"Delete{word}Policy")
        def delete(self, call: Call, request: Document) -> None:
            name = request["PolicyName"]

            def edit(principal: Principal) -> Principal:
                if name not in principal.inline:
                    raise _no_inline(kind, name)
                return replace(principal, inline={k: v for k, v in principal.inline.items() if k != name})

            book.change(kind, request[f"{word}Name"], edit)

    return InlinePolicies()


def boundaries(kind: PrincipalKind, book: RoleBook, policy_exists: Callable[[str], bool]) -> object:
    """Return the handlers of Put..PermissionsBoundary and Delete..PermissionsBoundary for *kind*."""
    word = kind.capitalize()

    class Boundaries:
        service = "iam"

        @operation(f"Put{word}PermissionsBoundary")
        def put(self, call: Call, request: Document) -> None:
            arn = request["PermissionsBoundary"]
            if not policy_exists(arn):
                raise no_such_policy(arn)
            book.change(kind, request[f"{word}Name"], lambda principal: replace(principal, boundary=arn))

        @operation(f"Delete{word}PermissionsBoundary")
        def delete(self, call: Call, request: Document) -> None:
            book.change(kind, request[f"{word}Name"], lambda principal: replace(principal, boundary=""))

    return Boundaries()


def tags(kind: PrincipalKind, book: RoleBook) -> object:
    """Return the handlers of Tag.., Untag.. and List..Tags for *kind*."""
    word = kind.capitalize()

    class Tags:
        service = "iam"

        @operation(f"Tag{word}")
        def tag(self, call: Call, request: Document) -> None:
            added = tags_from(request)
            book.change(
                kind,
                request[f"{word}Name"],
                lambda principal: replace(principal, tags={**principal.tags, **added}),
            )

        @operation(f"Untag{word}")
        def untag(self, call: Call, request: Document) -> None:
            gone = set(request["TagKeys"])
            book.change(
                kind,
                request[f"{word}Name"],
                lambda principal: replace(
                    principal, tags={k: v for k, v in principal.tags.items() if k not in gone}
                ),
            )

        @operation(f"List{word}Tags")
        def list_tags(self, call: Call, request: Document) -> Document:
            return _tag_page(request, book.find(kind, request[f"{word}Name"]).tags)

    return Tags()


def _tag_page(request: Document, of: Any) -> dict[str, Any]:
    return page(request, "Tags", tag_list(of), lambda tag: tag["Key"], lambda tag: tag)


def _version(policy: ManagedPolicy, version_id: str) -> PolicyVersion:
    for version in policy.versions:
        if version.id == version_id:
            return version
    raise AwsError(
        "NoSuchEntity",
        f"Policy {policy.arn} version {version_id} does not exist or is not attachable.",
        status=404,
    )


def _describe_version(policy: ManagedPolicy, version: PolicyVersion) -> dict[str, Any]:
    return {
        "Document": policy_text(version.document),
        "VersionId": version.id,
        "IsDefaultVersion": version.id == policy.default,
        "CreateDate": version.created,
    }


def _no_inline(kind: PrincipalKind, name: str) -> AwsError:
    return AwsError("NoSuchEntity", f"The {kind} policy with name {name} cannot be found.", status=404)
