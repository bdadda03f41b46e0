"""The operations of notebook instances on a database; nothing runs behind them here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sagesmith.errors import AwsError
from sagesmith.fleet.instance_types import describe
from sagesmith.lifecycle.notebook import Event, Ready, Released, StopRequested, step
from sagesmith.lifecycle.records import notebook_document, notebook_run
from sagesmith.notebooks.sessions import TICKET_S, new_session, new_ticket, read_ticket, session_end
from sagesmith.services import sagemaker
from sagesmith.store.database import Database
from sagesmith.store.resources import Change, Resource, Resources
from tests.jobs.bench import ROLE
from tests.services.direct import Direct

KIND = "notebook-instance"


@pytest.fixture
def notified() -> list[str]:
    return []


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[Resources]:
    database = Database(f"sqlite:///{tmp_path / 'notebooks.db'}")
    database.migrate()
    seconds = itertools.count(1_000_000.0)
    yield Resources(database, lambda: next(seconds), summarize=sagemaker.summaries())
    database.close()


@pytest.fixture
def call(resources: Resources, notified: list[str]) -> Direct:
    seconds = itertools.count(2_000_000.0)
    clock: Callable[[], float] = lambda: next(seconds)  # noqa: E731
    handlers = sagemaker.handlers(
        resources=resources,
        notify_job=notified.append,
        notify_endpoint=notified.append,
        notify_notebook=notified.append,
        volume_bytes=lambda uid: 6 << 30,
        check_instance_type=describe,
        has_object=lambda bucket, key: True,
        default_role_arn=ROLE,
        url=lambda: "https://here:8777",
        clock=clock,
    )
    return Direct(*handlers, clock=clock)


def make(call: Direct, name: str = "one", **more: Any) -> dict[str, Any]:
    call(
        "CreateNotebookInstance", NotebookInstanceName=name, InstanceType="ml.t3.medium", RoleArn=ROLE, **more
    )
    return dict(call("DescribeNotebookInstance", NotebookInstanceName=name))


def happens(resources: Resources, name: str, *events: Event | Callable[[str], Event]) -> None:
    def edit(resource: Resource) -> Change:
        run = notebook_run(resource.document)
        for event in events:
            run = step(run, event(run.instance_id or run.ending[0]) if callable(event) else event)
        return Change(run.status.value, notebook_document(resource.document, run))

    resources.update(KIND, "us-east-1", name, edit)


def ready(instance_id: str) -> Event:
    return Ready(instance_id, "unix:/x")


def refused(call: Direct, operation: str, sentence: str, **request: Any) -> None:
    with pytest.raises(AwsError, match=sentence) as caught:
        call(operation, **request)
    assert caught.value.code == "ValidationException"


def test_describe_gives_back_the_request_with_defaults(call: Direct, notified: list[str]) -> None:
    call("CreateNotebookInstanceLifecycleConfig", NotebookInstanceLifecycleConfigName="hooks")
    found = make(
        call, LifecycleConfigName="hooks", SubnetId="subnet-1", SecurityGroupIds=["sg-1"], KmsKeyId="key",
        DefaultCodeRepository="https://example.com/r.git", Tags=[{"Key": "team", "Value": "x"}],
    )  # fmt: skip
    arn = found["NotebookInstanceArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/one"
    assert notified == [arn]
    assert found["NotebookInstanceStatus"] == "Pending"
    assert found["NotebookInstanceLifecycleConfigName"] == "hooks"
    assert (found["SecurityGroups"], found["VolumeSizeInGB"], found["RootAccess"]) == (["sg-1"], 5, "Enabled")
    assert (found["DirectInternetAccess"], found["KmsKeyId"]) == ("Enabled", "key")
    assert found["Url"].endswith("/_sagesmith/notebooks/us-east-1/one/")
    assert call("ListTags", ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "x"}]
    assert not {"FailureReason", "Tags", "LifecycleConfigName"} & set(found)


def test_what_cannot_work_is_refused(call: Direct) -> None:
    common = {"NotebookInstanceName": "bad", "InstanceType": "ml.t3.medium", "RoleArn": ROLE}
    create = "CreateNotebookInstance"
    refused(call, create, "SubnetId", **common, DirectInternetAccess="Disabled")
    refused(call, create, "no longer offered", **common, AcceleratorTypes=["ml.eia1.medium"])
    refused(call, create, "notebook-al2-v3", **common, PlatformIdentifier="notebook-al1-v1")
    refused(call, create, "lifecycle configuration", **common, LifecycleConfigName="none")
    refused(call, create, "code repository", **common, DefaultCodeRepository="none")
    refused(call, create, "Duplicate", **common, DefaultCodeRepository="https://a/bcd",
            AdditionalCodeRepositories=["https://a/bcd"])  # fmt: skip
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:s"
    config = {"RepositoryUrl": "https://example.com/r.git", "SecretArn": secret}
    call("CreateCodeRepository", CodeRepositoryName="private", GitConfig=config)
    refused(call, create, "Secrets Manager", **common, AdditionalCodeRepositories=["private"])
    make(call)
    refused(call, create, "duplicate Notebook Instance", **{**common, "NotebookInstanceName": "one"})
    refused(call, "DescribeNotebookInstance", "RecordNotFound", NotebookInstanceName="bad")


def test_statuses_allow_what_they_allow_on_aws(call: Direct, resources: Resources) -> None:
    make(call)
    named = {"NotebookInstanceName": "one"}
    for operation in ("StartNotebookInstance", "StopNotebookInstance", "DeleteNotebookInstance"):
        refused(call, operation, r"Status \(Pending\) not in \(\[", **named)
    refused(call, "UpdateNotebookInstance", "Stop it first", **named, VolumeSizeInGB=6)
    refused(call, "CreatePresignedNotebookInstanceUrl", "must be InService", **named)
    happens(resources, "one", ready)
    refused(call, "DeleteNotebookInstance", r"Status \(InService\) not in \(\[Stopped, Failed\]\)", **named)
    call("StopNotebookInstance", **named)
    assert call("DescribeNotebookInstance", **named)["NotebookInstanceStatus"] == "Stopping"
    happens(resources, "one", Released)
    refused(call, "StartNotebookInstance", r"holds 6\.0 GB, more than its VolumeSizeInGB of 5", **named)
    call("UpdateNotebookInstance", **named, VolumeSizeInGB=6)
    call("StartNotebookInstance", **named)
    assert call("DescribeNotebookInstance", **named)["NotebookInstanceStatus"] == "Pending"


def test_a_stopped_one_can_be_changed_and_its_volume_grow(call: Direct, resources: Resources) -> None:
    call("CreateNotebookInstanceLifecycleConfig", NotebookInstanceLifecycleConfigName="hooks")
    make(call, VolumeSizeInGB=10, LifecycleConfigName="hooks")
    happens(resources, "one", ready, StopRequested(), Released)
    named = {"NotebookInstanceName": "one"}
    refused(call, "UpdateNotebookInstance", "can only grow", **named, VolumeSizeInGB=9)
    refused(call, "UpdateNotebookInstance", "together", **named, LifecycleConfigName="hooks",
            DisassociateLifecycleConfig=True)  # fmt: skip
    refused(call, "DeleteNotebookInstanceLifecycleConfig", "used by notebook instances: one",
            NotebookInstanceLifecycleConfigName="hooks")  # fmt: skip
    changed = {"InstanceType": "ml.t3.large", "VolumeSizeInGB": 20, "DisassociateLifecycleConfig": True}
    assert call("UpdateNotebookInstance", **named, **changed) == {}
    found = call("DescribeNotebookInstance", **named)
    assert (found["InstanceType"], found["VolumeSizeInGB"]) == ("ml.t3.large", 20)
    assert found["NotebookInstanceStatus"] == "Stopped"
    assert "NotebookInstanceLifecycleConfigName" not in found
    call("DeleteNotebookInstanceLifecycleConfig", NotebookInstanceLifecycleConfigName="hooks")


def test_lists_filter_and_are_sorted_by_name(call: Direct, resources: Resources) -> None:
    call("CreateNotebookInstanceLifecycleConfig", NotebookInstanceLifecycleConfigName="hooks-1")
    make(
        call, "b", LifecycleConfigName="hooks-1", AdditionalCodeRepositories=["https://a/bcd", "https://a/b"]
    )
    make(call, "a", DefaultCodeRepository="https://a/training.git")
    make(call, "c", AdditionalCodeRepositories=["https://a/bcd2"])
    happens(resources, "c", ready)

    def names(**filters: Any) -> list[str]:
        page = call("ListNotebookInstances", **filters)
        return [found["NotebookInstanceName"] for found in page["NotebookInstances"]]

    assert names() == ["a", "b", "c"]
    assert names(SortBy="CreationTime", SortOrder="Descending") == ["c", "a", "b"]
    assert names(StatusEquals="InService") == ["c"]
    assert names(SortBy="Status") == ["c", "b", "a"]
    assert names(NotebookInstanceLifecycleConfigNameContains="hooks") == ["b"]
    assert names(DefaultCodeRepositoryContains="training") == ["a"]
    assert names(AdditionalCodeRepositoryEquals="https://a/bcd") == ["b"]
    assert names(NameContains="C") == ["c"]
    first = call("ListNotebookInstances", MaxResults=2)
    rest = call("ListNotebookInstances", MaxResults=2, NextToken=first["NextToken"])
    assert [n["NotebookInstanceName"] for n in rest["NotebookInstances"]] == ["c"]
    assert first["NotebookInstances"][1]["AdditionalCodeRepositories"] == ["https://a/bcd", "https://a/b"]


def test_a_presigned_url_lets_into_this_notebook_alone(call: Direct, resources: Resources) -> None:
    make(call)
    happens(resources, "one", ready)
    answer = call("CreatePresignedNotebookInstanceUrl", NotebookInstanceName="one",
                  SessionExpirationDurationInSeconds=1800)  # fmt: skip
    url = urlsplit(answer["AuthorizedUrl"])
    assert (url.scheme, url.path) == ("https", "/_sagesmith/notebooks/us-east-1/one/")
    row = resources.get(KIND, "us-east-1", "one")
    assert row is not None
    secret, token = notebook_run(row.document).secret, parse_qs(url.query)["authToken"][0]
    ticket = read_ticket(secret, token, 2_000_010.0)
    assert ticket is not None
    assert (ticket.session_s, ticket.expires - ticket.issued) == (1800, TICKET_S)
    assert read_ticket("another", token, 2_000_010.0) is None
    assert read_ticket(secret, token, ticket.expires + 1) is None
    assert secret not in str(call("DescribeNotebookInstance", NotebookInstanceName="one"))


def test_tickets_and_sessions_are_not_each_other() -> None:
    ticket, session = new_ticket("s", 100.0, 1800), new_session("s", 200.0)
    assert session_end("s", session, 150.0) == 200.0
    assert session_end("s", session, 201.0) is None
    assert session_end("s", ticket, 150.0) is None
    assert read_ticket("s", session, 150.0) is None
    for broken in ("", ".", "x.y", session[:-1], "é" + session, session.replace(".", "")):
        assert session_end("s", broken, 150.0) is None
    assert session_end("", new_session("", 200.0), 150.0) is None, "no secret, nobody comes in"


def test_scripts_must_be_base64_text(call: Direct) -> None:
    for wrong in ("not base64!", "/w=="):
        refused(call, "CreateNotebookInstanceLifecycleConfig", "base64-encoded UTF-8",
                NotebookInstanceLifecycleConfigName="hooks", OnStart=[{"Content": wrong}])  # fmt: skip
    named = {"NotebookInstanceLifecycleConfigName": "hooks"}
    call("CreateNotebookInstanceLifecycleConfig", **named, OnStart=[{"Content": "eA=="}])
    call("UpdateNotebookInstanceLifecycleConfig", **named, OnCreate=[{"Content": "eQ=="}])
    found = call("DescribeNotebookInstanceLifecycleConfig", **named)
    assert (found["OnCreate"], found["OnStart"]) == ([{"Content": "eQ=="}], [{"Content": "eA=="}])
