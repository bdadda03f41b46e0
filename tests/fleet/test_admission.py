import asyncio

import pytest

from sagesmith.fleet._admission import Admission, Request
from sagesmith.fleet.api import InstanceShape

GB = 1024**3
MACHINE = InstanceShape(4, 16)


def one(name: str, *, group: str = "", size: int = 1, vcpus: int = 2, serving: bool = False) -> Request:
    return Request(name, group or name, size, InstanceShape(vcpus, 4), serving)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_fits_starts_and_the_rest_waits_in_order() -> None:
    admission = Admission(MACHINE)
    assert await admission.enter(one("a")) == 2
    assert await admission.enter(one("b")) == 2
    order: list[str] = []

    async def wait(name: str) -> None:
        await admission.enter(one(name))
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in ("c", "d", "e")]
    await settle()
    assert admission.waiting == ["c", "d", "e"]
    admission.leave("a")
    await settle()
    assert order == ["c"]
    admission.leave("b")
    admission.leave("c")
    await asyncio.gather(*tasks)
    assert order == ["c", "d", "e"]


async def test_a_group_larger_than_the_machine_runs_together_and_shares_it() -> None:
    admission = Admission(MACHINE)
    shares = [await admission.enter(one(f"{i}", group="job", size=4, vcpus=8)) for i in range(4)]
    assert shares == [1, 1, 1, 1]


async def test_two_groups_never_hold_half_of_the_machine_each() -> None:
    admission = Admission(MACHINE)
    await admission.enter(one("a1", group="a", size=2))
    second = asyncio.create_task(admission.enter(one("b1", group="b", size=2)))
    await settle()
    assert await admission.enter(one("a2", group="a", size=2)) == 2
    assert not second.done()
    admission.leave("a1")
    await settle()
    assert not second.done(), "the group's room is given back when its last instance is gone"
    admission.leave("a2")
    assert await second == 2


async def test_an_endpoint_starts_while_training_uses_everything() -> None:
    admission = Admission(MACHINE)
    await admission.enter(one("job", vcpus=64))
    assert await admission.enter(one("endpoint", serving=True)) == 2


async def test_giving_up_leaves_the_queue_and_lets_the_next_one_in() -> None:
    admission = Admission(MACHINE)
    await admission.enter(one("a", vcpus=3))
    large = asyncio.create_task(admission.enter(one("large", vcpus=4)))
    small = asyncio.create_task(admission.enter(one("small", vcpus=1)))
    await settle()
    assert not small.done(), "no overtaking"
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    assert await small == 1
    assert admission.waiting == []


async def test_the_rest_of_a_group_does_not_wait_behind_another_job() -> None:
    admission = Admission(MACHINE)
    await admission.enter(one("first", vcpus=4))
    requests = [one("a1", group="a", size=2), one("b", vcpus=4), one("a2", group="a", size=2)]
    waiting = [asyncio.create_task(admission.enter(request)) for request in requests]
    await settle()
    admission.leave("first")
    await settle()
    assert [task.done() for task in waiting] == [True, False, True]
    admission.leave("a1")
    admission.leave("a2")
    await waiting[1]


async def test_as_many_endpoints_run_as_memory_allows_and_only_some_start_at_a_time() -> None:
    left = 200 * GB
    machine = InstanceShape(2, 256 * GB)
    admission = Admission(machine, lambda: left)
    running = [asyncio.create_task(admission.enter(one(f"e{n}", serving=True))) for n in range(41)]
    await settle()
    assert sum(task.done() for task in running) == 8
    for n in range(32):
        admission.started(f"e{n}")
        await settle()
    assert sum(task.done() for task in running) == 40
    left = 31 * GB  # less than an eighth: it is left to others
    for n in range(32, 40):
        admission.started(f"e{n}")
    await settle()
    assert admission.waiting == ["e40"]
    left = 33 * GB
    admission.leave("e0")
    assert await running[40] == 2


async def test_the_first_endpoints_run_however_little_memory_is_left() -> None:
    admission = Admission(MACHINE, lambda: 0)
    for n in range(32):
        assert await admission.enter(one(f"e{n}", serving=True)) == 2
        admission.started(f"e{n}")
    last = asyncio.create_task(admission.enter(one("last", serving=True)))
    await settle()
    assert not last.done()
    admission.leave("e3")
    assert await last == 2
