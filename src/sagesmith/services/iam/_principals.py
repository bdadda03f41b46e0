"""Operations on users, access keys, groups and roles themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.iam._answers import (
    Document,
    RoleBook,
    boundary_of,
    conflict,
    describe,
    page,
    tags_from,
)
from sagesmith.services.iam._documents import check_document
from sagesmith.store.identities import Identities
from sagesmith.store.principals import AccessKey, Principal

__all__ = ["AccessKeys", "Groups", "Roles", "ServiceLinkedRoles", "Users"]

KEYS_PER_USER: Final = 2


class Users:
    """CreateUser, GetUser, ListUsers, UpdateUser, DeleteUser."""

    service = "iam"

    def __init__(self, identities: Identities, policy_exists: Callable[[str], bool]) -> None:
        self._identities = identities
        self._policy_exists = policy_exists

    @operation("CreateUser")
    def create_user(self, call: Call, request: Document) -> Document:
        """Make a user, who may do nothing yet."""
        user = self._identities.create_principal(
            "user",
            request["UserName"],
            path=request.get("Path", "/"),
            tags=tags_from(request),
            boundary=boundary_of(request, self._policy_exists),
        )
        return {"User": describe(user)}

    @operation("GetUser")
    def get_user(self, call: Call, request: Document) -> Document:
        """Return a user; without a name, the caller."""
        return {"User": describe(named_user(self._identities, call, request))}

    @operation("ListUsers")
    def list_users(self, call: Call, request: Document) -> Document:
        """Return the users below a path."""
        return _list(self._identities.principals("user"), "Users", request)

    @operation("UpdateUser")
    def update_user(self, call: Call, request: Document) -> None:
        """Give a user another name or path."""
        user = self._identities.require("user", request["UserName"])
        self._identities.rename_principal(
            "user", user.name, request.get("NewUserName", user.name), request.get("NewPath", user.path)
        )

    @operation("DeleteUser")
    def delete_user(self, call: Call, request: Document) -> None:
        """Delete a user that has nothing left."""
        user = self._identities.require("user", request["UserName"])
        if self._identities.keys_of(user.name):
            raise conflict("must delete access keys first")
        if user.groups:
            raise conflict("must remove users from group first")
        _check_bare(user)
        self._identities.delete_principal("user", user.name)


class AccessKeys:
    """CreateAccessKey, ListAccessKeys, UpdateAccessKey, DeleteAccessKey, GetAccessKeyLastUsed."""

    service = "iam"

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @operation("CreateAccessKey")
    def create_access_key(self, call: Call, request: Document) -> Document:
        """Make a key. Its secret is told now and never again."""
        user = named_user(self._identities, call, request)
        if len(self._identities.keys_of(user.name)) >= KEYS_PER_USER:
            raise AwsError(
                "LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {KEYS_PER_USER}", status=409
            )
        key = self._identities.create_key(user.name)
        return {"AccessKey": {**_describe_key(key), "SecretAccessKey": key.secret_access_key}}

    @operation("ListAccessKeys")
    def list_access_keys(self, call: Call, request: Document) -> Document:
        """Return a user's keys without their secrets."""
        keys = self._identities.keys_of(named_user(self._identities, call, request).name)
        return page(request, "AccessKeyMetadata", keys, lambda key: key.access_key_id, _describe_key)

    @operation("UpdateAccessKey")
    def update_access_key(self, call: Call, request: Document) -> None:
        """Switch a key on or off."""
        user = named_user(self._identities, call, request)
        self._identities.change_key(
            user.name, request["AccessKeyId"], active=request["Status"].lower() == "active"
        )

    @operation("DeleteAccessKey")
    def delete_access_key(self, call: Call, request: Document) -> None:
        """Delete a key."""
        self._identities.delete_key(named_user(self._identities, call, request).name, request["AccessKeyId"])

    @operation("GetAccessKeyLastUsed")
    def get_access_key_last_used(self, call: Call, request: Document) -> Document:
        """Return when and where a key was used last, since this server started."""
        key = self._identities.find_key(request["AccessKeyId"])
        if key is None:
            raise AwsError(
                "NoSuchEntity",
                f"The Access Key with id {request['AccessKeyId']} cannot be found.",
                status=404,
            )
        used = self._identities.last_use(key.access_key_id)
        last: dict[str, Any] = {"ServiceName": "N/A", "Region": "N/A"}
        if used is not None:
            last = {"LastUsedDate": used[0], "ServiceName": used[1], "Region": used[2]}
        answer: dict[str, Any] = {"AccessKeyLastUsed": last}
        if key.holder_kind == "user":
            answer["UserName"] = key.holder
        return answer


class Groups:
    """CreateGroup, GetGroup, ListGroups, UpdateGroup, DeleteGroup, and who is in them."""

    service = "iam"

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @operation("CreateGroup")
    def create_group(self, call: Call, request: Document) -> Document:
        """Make a group."""
        group = self._identities.create_principal(
            "group", request["GroupName"], path=request.get("Path", "/")
        )
        return {"Group": describe(group)}

    @operation("GetGroup")
    def get_group(self, call: Call, request: Document) -> Document:
        """Return a group and the users in it."""
        group = self._identities.require("group", request["GroupName"])
        members = _list(self._members(group), "Users", request)
        return {"Group": describe(group), **members}

    @operation("ListGroups")
    def list_groups(self, call: Call, request: Document) -> Document:
        """Return the groups below a path."""
        return _list(self._identities.principals("group"), "Groups", request)

    @operation("ListGroupsForUser")
    def list_groups_for_user(self, call: Call, request: Document) -> Document:
        """Return the groups that a user is in."""
        names = self._identities.require("user", request["UserName"]).groups
        groups = [group for name in names if (group := self._identities.principal("group", name))]
        return _list(groups, "Groups", request)

    @operation("UpdateGroup")
    def update_group(self, call: Call, request: Document) -> None:
        """Give a group another name or path."""
        group = self._identities.require("group", request["GroupName"])
        self._identities.rename_principal(
            "group", group.name, request.get("NewGroupName", group.name), request.get("NewPath", group.path)
        )

    @operation("DeleteGroup")
    def delete_group(self, call: Call, request: Document) -> None:
        """Delete a group that has nothing and nobody left."""
        group = self._identities.require("group", request["GroupName"])
        if self._members(group):
            raise conflict("must remove users from group first")
        _check_bare(group)
        self._identities.delete_principal("group", group.name)

    @operation("AddUserToGroup")
    def add_user_to_group(self, call: Call, request: Document) -> None:
        """Put a user into a group."""
        group = self._identities.require("group", request["GroupName"]).name
        self._identities.change_principal(
            "user",
            request["UserName"],
            lambda user: replace(user, groups=tuple(dict.fromkeys((*user.groups, group)))),
        )

    @operation("RemoveUserFromGroup")
    def remove_user_from_group(self, call: Call, request: Document) -> None:
        """Take a user out of a group."""
        group = self._identities.require("group", request["GroupName"]).name
        self._identities.change_principal(
            "user",
            request["UserName"],
            lambda user: replace(user, groups=tuple(name for name in user.groups if name != group)),
        )

    def _members(self, group: Principal) -> list[Principal]:
        return [user for user in self._identities.principals("user") if group.name in user.groups]


class Roles:
    """CreateRole, GetRole, ListRoles, UpdateRole, UpdateAssumeRolePolicy, DeleteRole."""

    service = "iam"

    def __init__(self, identities: Identities, book: RoleBook, policy_exists: Callable[[str], bool]) -> None:
        self._identities = identities
        self._book = book
        self._policy_exists = policy_exists

    @operation("CreateRole")
    def create_role(self, call: Call, request: Document) -> Document:
        """Make a role with a trust policy, which may do nothing yet."""
        check_document(request["AssumeRolePolicyDocument"], "trust")
        role = self._identities.create_principal(
            "role",
            request["RoleName"],
            path=request.get("Path", "/"),
            trust=request["AssumeRolePolicyDocument"],
            description=request.get("Description", ""),
            max_session_s=request.get("MaxSessionDuration", 3600),
            tags=tags_from(request),
            boundary=boundary_of(request, self._policy_exists),
        )
        return {"Role": describe(role)}

    @operation("GetRole")
    def get_role(self, call: Call, request: Document) -> Document:
        """Return a role; unless strict, any name is one."""
        return {"Role": describe(self._book.find("role", request["RoleName"]))}

    @operation("ListRoles")
    def list_roles(self, call: Call, request: Document) -> Document:
        """Return the declared roles below a path."""
        return _list(self._identities.principals("role"), "Roles", request)

    @operation("UpdateRole")
    def update_role(self, call: Call, request: Document) -> Document:
        """Change description and longest session of a role."""

        def edit(role: Principal) -> Principal:
            return replace(
                role,
                description=request.get("Description", role.description),
                max_session_s=request.get("MaxSessionDuration", role.max_session_s),
            )

        self._book.change("role", request["RoleName"], edit)
        return {}

    @operation("UpdateRoleDescription")
    def update_role_description(self, call: Call, request: Document) -> Document:
        """Change the description of a role."""
        role = self._book.change(
            "role", request["RoleName"], lambda role: replace(role, description=request["Description"])
        )
        return {"Role": describe(role)}

    @operation("UpdateAssumeRolePolicy")
    def update_assume_role_policy(self, call: Call, request: Document) -> None:
        """Replace the trust policy of a role."""
        check_document(request["PolicyDocument"], "trust")
        self._book.change(
            "role", request["RoleName"], lambda role: replace(role, trust=request["PolicyDocument"])
        )

    @operation("DeleteRole")
    def delete_role(self, call: Call, request: Document) -> None:
        """Delete a declared role that has no policies left."""
        role = self._identities.require("role", request["RoleName"])
        _check_bare(role)
        self._identities.delete_principal("role", role.name)

    @operation("ListInstanceProfilesForRole")
    def list_instance_profiles_for_role(self, call: Call, request: Document) -> Document:
        """Return no instance profiles: there are none here."""
        self._book.find("role", request["RoleName"])
        return {"InstanceProfiles": [], "IsTruncated": False}


_LINKED: Final[Mapping[str, str]] = {
    "sagemaker.amazonaws.com": "AmazonSageMakerNotebooks",
    "sagemaker.application-autoscaling.amazonaws.com": "ApplicationAutoScaling_SageMakerEndpoint",
}


class ServiceLinkedRoles:
    """CreateServiceLinkedRole, DeleteServiceLinkedRole, GetServiceLinkedRoleDeletionStatus."""

    service = "iam"

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @operation("CreateServiceLinkedRole")
    def create_service_linked_role(self, call: Call, request: Document) -> Document:
        """Make the role that a service itself uses."""
        service = request["AWSServiceName"]
        default = "".join(map(str.capitalize, service.removesuffix(".amazonaws.com").split(".")))
        suffix = f"_{request['CustomSuffix']}" if request.get("CustomSuffix") else ""
        name = f"AWSServiceRoleFor{_LINKED.get(service, default)}{suffix}"
        if self._identities.principal("role", name) is not None:
            raise AwsError(
                "InvalidInput",
                f"Service role name {name} has been taken in this account, please try a different suffix.",
            )
        trust = (
            '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
            f'"Principal": {{"Service": "{service}"}}}}]}}'
        )
        check_document(trust, "trust")
        role = self._identities.create_principal(
            "role",
            name,
            path=f"/aws-service-role/{service}/",
            trust=trust,
            description=request.get("Description", ""),
        )
        return {"Role": describe(role)}

    @operation("DeleteServiceLinkedRole")
    def delete_service_linked_role(self, call: Call, request: Document) -> Document:
        """Delete the role at once; the task that AWS would start is over when this answers."""
        role = self._identities.require("role", request["RoleName"])
        if not role.path.startswith("/aws-service-role/"):
            raise AwsError("InvalidInput", f"The role {role.name} is not a service-linked role.")
        self._identities.delete_principal("role", role.name)
        return {"DeletionTaskId": f"task{role.path}{role.name}/{role.id}"}

    @operation("GetServiceLinkedRoleDeletionStatus")
    def get_deletion_status(self, call: Call, request: Document) -> Document:
        """Return whether the role of that task is gone."""
        name = request["DeletionTaskId"].split("/")[-2:][0]
        there = self._identities.principal("role", name) is not None
        return {"Status": "FAILED" if there else "SUCCEEDED"}


def named_user(identities: Identities, call: Call, request: Document) -> Principal:
    """Return the user that the request names, or the caller if it names none."""
    name = request.get("UserName")
    if name is not None:
        return identities.require("user", name)
    if ":user/" not in call.caller.arn:
        raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
    return identities.require("user", call.caller.arn.rpartition("/")[2])


def _list(principals: list[Principal], member: str, request: Document) -> dict[str, Any]:
    prefix = request.get("PathPrefix", "/")
    found = [principal for principal in principals if principal.path.startswith(prefix)]
    return page(
        request, member, found, lambda principal: principal.name, lambda p: describe(p, with_tags=False)
    )


def _check_bare(principal: Principal) -> None:
    if principal.attached:
        raise conflict("must detach all policies first")
    if principal.inline:
        raise conflict("must delete policies first")


def _describe_key(key: AccessKey) -> dict[str, Any]:
    return {
        "UserName": key.holder,
        "AccessKeyId": key.access_key_id,
        "Status": "Active" if key.active else "Inactive",
        "CreateDate": key.created,
    }
