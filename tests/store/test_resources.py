"""What `Resources` does, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sagesmith.errors import AwsError
from sagesmith.store.database import Connection, Database
from sagesmith.store.resources import AlreadyExists, Change, Changed, ListQuery, Missing, Resource, Resources
from tests.conftest import FakeClock

KIND, REGION = "training-job", "us-east-1"


@pytest.fixture
def resources(database: Database, clock: FakeClock) -> Resources:
    return Resources(database, clock)


def arn_of(name: str, region: str = REGION) -> str:
    return f"arn:aws:sagemaker:{region}:123456789012:{KIND}/{name}"


def create(resources: Resources, name: str, **given: Any) -> Resource:
    region = given.pop("region", REGION)
    given.setdefault("document", {"TrainingJobName": name})
    return resources.create(KIND, region, name, arn=arn_of(name, region), **given)


def test_a_resource_comes_back_as_it_was_made(resources: Resources, clock: FakeClock) -> None:
    document = {
        "A": {"b": [1, 2.5, True, None, "\u00e9\x00"]},
        "Blob": b"\x00\xff",
        "$bytes": {"$bytes": b"x"},
    }
    made = create(resources, "j1", document=document, status="InProgress", parent="p", tags={"k": "v"})
    read = resources.get(KIND, REGION, "j1")
    assert read == made
    assert read is not None
    assert read.document == document == made.document
    assert (read.status, read.parent, read.created, read.modified) == (
        "InProgress",
        "p",
        clock.now,
        clock.now,
    )
    assert resources.by_arn(arn_of("J1").upper()) == made
    assert resources.tags(made.arn) == {"k": "v"}
    assert resources.get(KIND, REGION, "J1") is None
    assert resources.get(KIND, "us-west-2", "j1") is None


@pytest.mark.parametrize("document", [{"n": float("nan")}, {"n": {1: 2}}, {"n": {1, 2}}, {"n": 2**70}])
def test_what_json_cannot_say_is_refused(resources: Resources, document: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="document"):
        create(resources, "j1", document=document)
    assert resources.get(KIND, REGION, "j1") is None


def test_a_name_is_used_once_in_a_region(resources: Resources) -> None:
    create(resources, "j1")
    with pytest.raises(AlreadyExists, match="already exists"):
        create(resources, "j1", tags={"left": "behind"})
    create(resources, "j1", region="us-west-2")
    assert resources.tags(arn_of("j1")) == {}
    assert len(resources.events(arn_of("j1"))) == 1


def test_every_change_is_an_event_and_a_version(resources: Resources, clock: FakeClock) -> None:
    job = create(resources, "j1", status="InProgress")
    clock.advance(1)
    second = resources.change(job, status="Stopping", why="asked to")
    clock.advance(1)
    third = resources.change(second, document={"Note": "new"})
    assert job.version < second.version < third.version
    assert resources.get(KIND, REGION, "j1") == third
    assert third.document == {"Note": "new"}
    assert second.document == {"TrainingJobName": "j1"}
    assert (third.created, third.modified) == (clock.now - 2, clock.now)
    assert [(e.what, e.before, e.after, e.why, e.time) for e in resources.events(job.arn)] == [
        ("created", "", "InProgress", "", clock.now - 2),
        ("status", "InProgress", "Stopping", "asked to", clock.now - 1),
        ("document", "Stopping", "Stopping", "", clock.now),
    ]


def test_a_change_of_what_was_changed_is_refused(resources: Resources) -> None:
    job = create(resources, "j1", status="InProgress")
    resources.change(job, status="Stopping")
    with pytest.raises(Changed, match="in the meantime"):
        resources.change(job, status="Completed")
    with pytest.raises(Changed):
        resources.delete(job)
    assert [e.after for e in resources.events(job.arn)] == ["InProgress", "Stopping"]


def test_a_resource_made_anew_is_another_one(resources: Resources) -> None:
    old = create(resources, "j1", status="InProgress", tags={"a": "b"})
    resources.delete(old, why="asked to")
    resources.delete(old)
    create(resources, "j1", status="InProgress")
    with pytest.raises(Changed):
        resources.change(old, status="Failed")
    assert resources.tags(old.arn) == {}
    assert [e.what for e in resources.events(old.arn)] == ["created", "deleted", "created"]


def test_update_edits_the_present_state(resources: Resources) -> None:
    create(resources, "j1", status="InProgress")

    def stop(job: Resource) -> Change | None:
        return Change(status="Stopping") if job.status == "InProgress" else None

    first = resources.update(KIND, REGION, "j1", stop, "asked to")
    assert first.status == "Stopping"
    assert resources.update(KIND, REGION, "j1", stop) == first
    with pytest.raises(Missing):
        resources.update(KIND, REGION, "j2", stop)


def test_a_claim_holds_until_its_lease_ends(resources: Resources, clock: FakeClock) -> None:
    job = create(resources, "j1")
    mine = resources.claim(job, "a", 10)
    assert mine is not None
    assert mine.version > job.version
    assert resources.claim(job, "b", 10) is None
    clock.advance(5)
    assert resources.claim(mine, "a", 10) == mine
    clock.advance(9)
    assert resources.claim(job, "b", 10) is None
    clock.advance(2)
    theirs = resources.claim(job, "b", 10)
    assert theirs is not None
    with pytest.raises(Changed):
        resources.change(mine, status="Completed")
    resources.unclaim(mine, "a")
    assert resources.claim(job, "a", 10) is None
    resources.unclaim(theirs, "b")
    assert resources.claim(job, "a", 10) is not None
    resources.delete(resources.get(KIND, REGION, "j1") or job)
    assert resources.claim(job, "a", 10) is None


def test_a_resource_can_be_claimed_from_its_beginning(resources: Resources, clock: FakeClock) -> None:
    job = create(resources, "j1", owner="a", lease_s=10)
    assert resources.claim(job, "b", 10) is None
    assert resources.claim(job, "a", 10) == job
    assert [event.what for event in resources.events(job.arn)] == ["created"]
    clock.advance(4)
    assert resources.claim(job, "a", 10) == job  # more than half is left: nothing is written
    clock.advance(7)
    assert resources.claim(job, "b", 10) is not None


def test_what_belongs_to_a_change_is_written_with_it(resources: Resources, database: Database) -> None:
    job = create(resources, "j1")

    def note(connection: Connection) -> None:
        connection.execute("insert into tags (arn, key, value) values ('x', 'k', 'v')")

    resources.update(KIND, REGION, "j1", lambda _: None, also=note)
    assert resources.tags("x") == {}
    with pytest.raises(ValueError, match="document"):
        resources.update(KIND, REGION, "j1", lambda _: Change(document={"n": float("nan")}), also=note)
    assert resources.tags("x") == {}
    assert resources.update(KIND, REGION, "j1", lambda _: Change("Stopping"), also=note) != job
    assert resources.tags("x") == {"k": "v"}


def names(items: list[Resource]) -> list[str]:
    return [item.name for item in items]


def walk(resources: Resources, region: str | None = REGION, **query: Any) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        page = resources.list(KIND, region, ListQuery(**query, token=token))
        assert len(page.items) <= query["limit"]
        found += names(page.items)
        token = page.next_token
        if token is None:
            return found


def test_pages_hold_everything_once_in_order(resources: Resources, clock: FakeClock) -> None:
    order = ["c", "B", "a", "A-1", "a-2", "_", "Z", "z9", "z10"]
    for number, name in enumerate(order):
        create(resources, name, status="Completed" if number % 3 else "Failed")
        clock.advance(number % 2)
    for limit in (1, 2, 4, 9, 10):
        assert walk(resources, limit=limit, sort_by="name") == sorted(order)
        assert walk(resources, limit=limit, sort_by="name", descending=True) == sorted(order, reverse=True)
        made = walk(resources, limit=limit)
        assert made == ["B", "c", "A-1", "a", "_", "a-2", "Z", "z9", "z10"]
        assert walk(resources, limit=limit, descending=True) == made[::-1]
        assert walk(resources, limit=limit, sort_by="status")[-3:] == ["c", "A-1", "Z"]
    clock.advance(1)
    changed = resources.update(KIND, REGION, "Z", lambda _: Change(status="Stopped"))
    assert walk(resources, limit=2, sort_by="modified", descending=True)[0] == changed.name


def test_a_page_is_kept_by_what_comes_and_goes_between(resources: Resources, clock: FakeClock) -> None:
    for name in "abcdef":
        create(resources, name)
        clock.advance(1)
    first = resources.list(KIND, REGION, ListQuery(limit=3, sort_by="name"))
    resources.delete(first.items[0])
    create(resources, "aa")
    second = resources.list(KIND, REGION, ListQuery(limit=3, sort_by="name", token=first.next_token))
    assert names(second.items) == ["d", "e", "f"]
    assert second.next_token is None


def test_filters(resources: Resources, clock: FakeClock) -> None:
    start = clock.now
    for number, name in enumerate(["Alpha", "beta", "alphabet", "gamma_1"]):
        create(
            resources, name, status="InProgress" if number < 2 else "Failed", parent="p" if number else "",
            document={"Number": number, "Text": name, "Flag": number == 1},
        )  # fmt: skip
        clock.advance(10)

    def found(**query: Any) -> list[str]:
        return names(resources.list(KIND, REGION, ListQuery(**query)).items)

    assert found(name_contains="ALPHA") == ["Alpha", "alphabet"]
    assert found(name_contains="_") == ["gamma_1"]
    assert found(name_contains="%") == []
    assert found(created_after=start + 10, created_before=start + 20) == ["beta", "alphabet"]
    assert found(modified_after=start + 20.5) == ["gamma_1"]
    assert found(modified_before=start + 9.5) == ["Alpha"]
    assert found(status="Failed") == ["alphabet", "gamma_1"]
    assert found(status=("Failed", "InProgress"), parent="") == ["Alpha"]
    assert found(where={"Number": 2}) == ["alphabet"]
    assert found(where={"Text": "beta", "Flag": True}) == ["beta"]
    assert found(where={"Absent": None, "Flag": True}) == ["beta"]
    assert found(arn_in=[arn_of("BETA"), arn_of("gamma_1")]) == ["beta", "gamma_1"]
    assert found(arn_in=[]) == []
    create(resources, "elsewhere", region="eu-west-1")
    assert walk(resources, None, limit=2, sort_by="name") == [
        "Alpha",
        "alphabet",
        "beta",
        "elsewhere",
        "gamma_1",
    ]
    assert names(resources.with_status(KIND, ["InProgress", ""])) == ["Alpha", "beta", "elsewhere"]


@pytest.mark.parametrize("token", ["x", "\u00e9", "bnVsbA==", "WyJhIiwxXQ==", "=" * 100])
def test_a_malformed_token_is_refused(resources: Resources, token: str) -> None:
    with pytest.raises(AwsError, match="Invalid NextToken") as caught:
        resources.list(KIND, REGION, ListQuery(token=token))
    assert caught.value.code == "ValidationException"


def test_a_token_of_another_query_is_refused(resources: Resources) -> None:
    for name in "abc":
        create(resources, name)
    token = resources.list(KIND, REGION, ListQuery(limit=1)).next_token
    assert resources.list(KIND, REGION, ListQuery(limit=2, token=token)).next_token is None
    for query in (ListQuery(token=token, descending=True), ListQuery(token=token, name_contains="a")):
        with pytest.raises(AwsError, match="Invalid NextToken"):
            resources.list(KIND, REGION, query)


def test_private_members_lie_beside_the_text_that_is_answered(resources: Resources) -> None:
    job = create(resources, "j1", document={"TrainingJobName": "j1", "$run": {"hosts": [1]}})
    assert job.text == '{"TrainingJobName":"j1"}'
    assert job.document == {"TrainingJobName": "j1", "$run": {"hosts": [1]}}
    changed = resources.change(job, document={**job.document, "$run": {}})
    assert resources.get(KIND, REGION, "j1") == changed
    assert (changed.text, changed.private) == (job.text, '{"$run":{}}')
    assert resources.change(changed, document={"a": 1}).private == ""


def test_summaries_follow_their_resources(database: Database, clock: FakeClock) -> None:
    def summarize(resource: Resource) -> str:
        return f"{resource.name} {resource.status} {resource.modified - resource.created} {resource.document['n']}"

    resources = Resources(database, clock, summarize={KIND: summarize})
    jobs = [create(resources, f"j{number}", document={"n": number}, status="A") for number in range(3)]
    clock.now += 5
    resources.change(jobs[0], status="B")
    resources.update(KIND, REGION, "j1", lambda job: Change(document={"n": 10}))
    assert resources.claim(jobs[2], "owner", 60)
    query = ListQuery(sort_by="name", limit=2)
    first = resources.summaries(KIND, REGION, query)
    assert first.items == ["j0 B 5.0 0", "j1 A 5.0 10"]
    assert first.next_token == resources.list(KIND, REGION, query).next_token
    create(Resources(database, clock), "j3", document={"n": 3})  # by somebody who writes no summaries
    rest = resources.summaries(KIND, REGION, ListQuery(sort_by="name", limit=2, token=first.next_token))
    assert rest.items == ["j2 A 0.0 2", "j3  0.0 3"]
    assert rest.next_token is None


def test_tags(resources: Resources) -> None:
    job = create(resources, "j1", tags={"b": "1", "a": "2"})
    create(resources, "j2", tags={"a": "3"})
    resources.tag(job.arn.upper(), {"a": "4", "c": ""})
    assert list(resources.tags(job.arn).items()) == [("a", "4"), ("b", "1"), ("c", "")]
    resources.untag(job.arn, ["b", "zzz"])
    assert resources.tags(job.arn) == {"a": "4", "c": ""}
    assert names(resources.list_tagged(KIND, "a")) == ["j1", "j2"]
    assert names(resources.list_tagged(KIND, "a", "3")) == ["j2"]


def test_threads_that_change_the_same_rows_lose_nothing(database: Database) -> None:
    resources = Resources(database)
    for number in range(3):
        create(resources, f"j{number}", document={"Count": 0})
    versions: dict[str, list[int]] = {f"j{number}": [] for number in range(3)}
    start = threading.Barrier(8)

    def increment(job: Resource) -> Change:
        return Change(document={"Count": job.document["Count"] + 1})

    def by_update(name: str) -> None:
        versions[name].append(resources.update(KIND, REGION, name, increment).version)

    def by_change(name: str) -> None:
        while True:
            job = resources.get(KIND, REGION, name)
            assert job is not None
            try:
                changed = resources.change(job, document={"Count": job.document["Count"] + 1})
            except Changed:
                continue
            versions[name].append(changed.version)
            return

    def work(thread: int) -> None:
        start.wait()
        for number in range(15):
            (by_update if thread % 2 else by_change)(f"j{(number + thread) % 3}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    counts = [resources.update(KIND, REGION, name, lambda _: None).document["Count"] for name in versions]
    assert counts == [40, 40, 40]
    for seen in versions.values():
        assert len(set(seen)) == 40
    for name in versions:
        assert len(resources.events(arn_of(name))) == 41


def test_one_of_many_threads_gets_a_claim(database: Database) -> None:
    resources = Resources(database)
    jobs = [create(resources, f"j{number}") for number in range(10)]
    start = threading.Barrier(8)

    def claim_all(thread: int) -> list[str]:
        start.wait()
        return [job.name for job in jobs if resources.claim(job, f"owner-{thread}", 60)]

    with ThreadPoolExecutor(8) as pool:
        claimed = [name for names_ in pool.map(claim_all, range(8)) for name in names_]
    assert sorted(claimed) == sorted(job.name for job in jobs)
