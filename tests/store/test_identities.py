"""Identities: what is kept, found, and forgotten at the right moment."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sagesmith.errors import AwsError
from sagesmith.store.database import Database
from sagesmith.store.identities import ADMINISTRATOR, Identities
from tests.conftest import FakeClock

ACCOUNT = "123456789012"


@pytest.fixture
def identities(database: Database, clock: FakeClock) -> Identities:
    return Identities(database, ACCOUNT, clock=clock)


def test_the_first_start_makes_administrator_and_default_role_once(
    identities: Identities, database: Database
) -> None:
    key = identities.ensure_administrator()
    again = Identities(database, ACCOUNT).ensure_administrator()
    assert again == key
    assert len(key.secret_access_key) == 40
    assert key.caller_arn == f"arn:aws:iam::{ACCOUNT}:user/{ADMINISTRATOR}"
    role = identities.require("role", "SagesmithExecutionRole")
    assert "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess" in role.attached
    trust = json.loads(role.trust)
    assert trust["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}


def test_an_administrator_without_an_active_key_gets_a_new_one(identities: Identities) -> None:
    key = identities.ensure_administrator()
    identities.change_key(ADMINISTRATOR, key.access_key_id, active=False)
    assert identities.ensure_administrator().access_key_id != key.access_key_id


def test_names_differ_by_more_than_case(identities: Identities) -> None:
    identities.create_principal("user", "Ada")
    found = identities.principal("user", "ADA")
    assert found is not None
    assert found.name == "Ada"
    with pytest.raises(AwsError, match="User with name ada already exists") as taken:
        identities.create_principal("user", "ada")
    assert taken.value.code == "EntityAlreadyExists"


def test_a_change_is_seen_at_once_and_moves_the_generation(identities: Identities) -> None:
    identities.create_principal("role", "trainer")
    before = identities.generation
    identities.change_principal("role", "trainer", lambda role: replace(role, inline={"p": "{}"}))
    assert identities.require("role", "trainer").inline == {"p": "{}"}
    assert identities.generation != before


def test_a_failed_change_changes_nothing(identities: Identities) -> None:
    identities.create_principal("role", "trainer", description="as it was")
    with pytest.raises(ZeroDivisionError):
        identities.change_principal("role", "trainer", lambda role: replace(role, description=str(1 / 0)))
    assert identities.require("role", "trainer").description == "as it was"


def test_keys_survive_a_restart_and_end_with_their_user(identities: Identities, database: Database) -> None:
    identities.create_principal("user", "ada")
    key = identities.create_key("ada")
    assert Identities(database, ACCOUNT).find_key(key.access_key_id) == key
    identities.delete_principal("user", "ada")
    assert identities.find_key(key.access_key_id) is None


def test_a_deactivated_key_is_known_as_such(identities: Identities) -> None:
    identities.create_principal("user", "ada")
    key = identities.create_key("ada")
    identities.change_key("ada", key.access_key_id, active=False)
    found = identities.find_key(key.access_key_id)
    assert found is not None
    assert not found.active
    with pytest.raises(AwsError, match="cannot be found"):
        identities.delete_key("somebody-else", key.access_key_id)


def test_a_session_of_a_role_has_token_end_and_session_arn(identities: Identities, clock: FakeClock) -> None:
    role = identities.create_principal("role", "trainer", path="/service-role/")
    key = identities.issue(role.arn, "job-1", 900, {"Version": "2012-10-17", "Statement": []})
    assert key.caller_arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/trainer/job-1"
    assert key.user_id == f"{role.id}:job-1"
    assert key.expires == clock.now + 900
    assert key.session_token
    assert json.loads(key.session_policies[0])["Statement"] == []
    identities.revoke(key.access_key_id)
    assert identities.find_key(key.access_key_id) is None
    identities.revoke(key.access_key_id)


def test_revoking_one_session_leaves_what_was_derived_about_others(identities: Identities) -> None:
    key = identities.issue("arn:aws:iam::123456789012:role/undeclared", "job", None)
    before = identities.generation
    identities.revoke(key.access_key_id)
    assert identities.generation == before


def test_an_undeclared_role_has_the_same_identifier_each_time(identities: Identities) -> None:
    first = identities.issue("arn:aws:iam::999999999999:role/x/Anything", "a", None)
    second = identities.issue("Anything", "b", None)
    assert first.user_id.partition(":")[0] == second.user_id.partition(":")[0]
    assert first.caller_arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/Anything/a"


def test_long_expired_keys_are_swept(identities: Identities, database: Database, clock: FakeClock) -> None:
    old = identities.issue("role", "old", 900)
    clock.advance(90_000)
    identities.issue("role", "new", 900)
    assert Identities(database, ACCOUNT).find_key(old.access_key_id) is None


def test_a_renamed_user_keeps_its_keys(identities: Identities) -> None:
    identities.create_principal("user", "ada")
    key = identities.create_key("ada")
    identities.rename_principal("user", "ada", "countess", "/nobles/")
    found = identities.find_key(key.access_key_id)
    assert found is not None
    assert found.caller_arn == f"arn:aws:iam::{ACCOUNT}:user/nobles/countess"
    assert identities.principal("user", "ada") is None


def test_policies_have_versions(identities: Identities) -> None:
    policy = identities.create_policy("reader", '{"Statement": []}')
    assert policy.arn == f"arn:aws:iam::{ACCOUNT}:policy/reader"
    assert policy.document == '{"Statement": []}'
    with pytest.raises(AwsError, match="already exists"):
        identities.create_policy("reader", "{}")
    identities.delete_policy(policy.arn)
    assert identities.policy(policy.arn) is None
    with pytest.raises(AwsError, match="was not found"):
        identities.change_policy(policy.arn, lambda policy: policy)


def test_another_servers_change_is_noticed(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "is_local", property(lambda self: False))
    here, there = Identities(database, ACCOUNT, clock=clock), Identities(database, ACCOUNT, clock=clock)
    there.create_principal("user", "ada")
    key = there.create_key("ada")
    assert here.find_key(key.access_key_id) is not None
    there.delete_key("ada", key.access_key_id)
    clock.advance(2)
    here.refresh()
    assert here.find_key(key.access_key_id) is None


def test_the_account_has_one_alias(identities: Identities) -> None:
    assert identities.alias() == ""
    identities.set_alias("smithy")
    identities.set_alias("forge")
    assert identities.alias() == "forge"
    identities.set_alias("")
    assert identities.alias() == ""
