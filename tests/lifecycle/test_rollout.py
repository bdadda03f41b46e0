"""How updates go over to a new deployment, and back, step by step."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sagesmith.lifecycle.endpoint import (
    AlarmRaised,
    DeleteRequested,
    Deployment,
    Due,
    EndpointRun,
    Failed,
    InstanceReleased,
    InstanceStarted,
    Phase,
    Policy,
    Ready,
    Serve,
    Size,
    Status,
    UpdateRequested,
    Variant,
    create,
    demands,
    step,
)
from sagesmith.lifecycle.records import endpoint_document, endpoint_run


class Story:
    """An endpoint of four blue instances that is updated to four green ones under *policy*."""

    def __init__(self, policy: Policy, *, count: int = 4) -> None:
        self.now = 1000.0
        self.run = create("i-0123456789ab", Deployment("one", (Variant("v", 1.0, count),)), self.now)
        self.up()
        self.old = {i.instance_id for i in self.run.instances}
        assert self.run.status is Status.IN_SERVICE
        self.tell(UpdateRequested(Deployment("two", (Variant("v", 1.0, count),)), policy))

    def tell(self, event: object) -> None:
        self.run, _ = step(self.run, event, self.now)  # type: ignore[arg-type]
        assert endpoint_run(endpoint_document({}, self.run)) == self.run

    def up(self) -> int:
        """Let every planned instance come up; return how many there were."""
        planned = [i.instance_id for i in self.run.instances if i.phase is Phase.PLANNED]
        for name in planned:
            self.tell(InstanceStarted(name))
            self.tell(Ready(name, f"unix:{name}"))
        return len(planned)

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is due come when it is due."""
        until = self.now + seconds
        while self.run.next_due is not None and self.run.next_due <= until:
            self.now = self.run.next_due
            self.tell(Due())
        self.now = until

    def release(self) -> None:
        for name in self.run.ending:
            self.tell(InstanceReleased(name))

    @property
    def shares(self) -> Mapping[int, float]:
        """By deployment, its part of the traffic."""
        (serve,) = [c for c in demands(self.run) if isinstance(c, Serve)]
        return {served.number: served.weight for served in serve.variants}

    @property
    def serving(self) -> tuple[int, int]:
        """How many instances of the old and of the new deployment the gateway knows."""
        (serve,) = [c for c in demands(self.run) if isinstance(c, Serve)]
        old = sum(len(served.instances) for served in serve.variants if served.number == 0)
        return old, sum(len(served.instances) for served in serve.variants) - old

    @property
    def status(self) -> str:
        return self.run.status.value


def quarter() -> Size:
    return Size(25, percent=True)


def test_all_at_once_bakes_before_the_old_instances_end() -> None:
    story = Story(Policy(wait_s=60, termination_wait_s=30))
    assert story.shares == {0: 1.0}
    assert story.up() == 4
    assert story.shares == {0: 0.0, 1: 1.0}
    story.wait(89)
    assert (story.status, story.run.ending) == (Status.UPDATING, ())
    story.wait(2)
    assert story.status == Status.IN_SERVICE
    assert set(story.run.ending) == story.old
    assert story.run.current is not None
    assert story.run.current.config_name == "two"


def test_a_canary_sings_before_the_rest() -> None:
    story = Story(Policy(first=quarter(), wait_s=60))
    story.up()
    assert story.shares == {0: 0.75, 1: 0.25}
    assert story.serving == (4, 4)
    story.wait(61)
    assert story.shares == {0: 0.0, 1: 1.0}
    story.wait(61)
    assert story.status == Status.IN_SERVICE
    assert story.shares == {1: 1.0}


def test_linear_steps() -> None:
    story = Story(Policy(first=Size(1), further=Size(1), wait_s=10))
    story.up()
    seen = []
    while story.status == Status.UPDATING:
        seen.append(story.shares[1])
        story.wait(10)
    assert seen == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("percent", [10, 33])
def test_linear_steps_that_do_not_divide_the_whole_end(percent: int) -> None:
    size = Size(percent, percent=True)
    story = Story(Policy(first=size, further=size, wait_s=10))
    story.up()
    turns = 0
    while story.status == Status.UPDATING:
        story.wait(10)
        turns += 1
    assert turns == -(-100 // percent)


def test_an_alarm_takes_a_canary_back() -> None:
    story = Story(Policy(first=quarter(), wait_s=60, alarms=("errors",)))
    story.up()
    story.tell(AlarmRaised("another"))
    assert story.status == Status.UPDATING
    story.tell(AlarmRaised("errors"))
    assert story.status == Status.ROLLING_BACK
    assert story.shares == {0: 1.0}
    assert story.serving == (4, 0)
    story.release()
    assert story.status == Status.IN_SERVICE
    assert story.run.current is not None
    assert story.run.current.config_name == "one"
    assert "alarm errors" in story.run.failure_reason


def test_an_update_that_takes_too_long_is_taken_back() -> None:
    story = Story(Policy(timeout_s=600))
    story.wait(601)
    assert story.status == Status.IN_SERVICE
    assert story.run.pending is None
    assert "longer than 600 s" in story.run.failure_reason


def test_rolling_replaces_a_batch_at_a_time() -> None:
    story = Story(Policy(rolling=True, first=quarter(), wait_s=10))
    seen = []
    while story.status == Status.UPDATING:
        assert story.up() == 1, "one batch"
        seen.append((story.shares[1], story.serving))
        assert len(story.run.instances) <= 5, "never more than one batch above"
        story.wait(10)
        story.release()
    assert seen == [(0.25, (4, 1)), (0.5, (3, 2)), (0.75, (2, 3)), (1.0, (1, 4))]
    assert story.serving == (0, 4)


def test_rolling_goes_back_by_batches() -> None:
    story = Story(Policy(rolling=True, first=Size(1), further=Size(2), wait_s=10, alarms=("errors",)))
    for _ in range(3):
        story.up()
        story.wait(10)
        story.release()
    assert story.serving == (1, 3)
    story.tell(AlarmRaised("errors"))
    assert story.status == Status.ROLLING_BACK
    assert story.serving == (1, 3), "nothing ends before there is something in its place"
    assert story.up() == 2
    assert story.serving[0] == 3
    story.up()
    story.release()
    assert story.status == Status.IN_SERVICE
    assert story.serving == (4, 0)
    assert story.run.current is not None
    assert story.run.current.config_name == "one"
    assert not any(v.held for v in story.run.current.variants)


def test_a_new_instance_that_never_comes_up_takes_a_rolling_update_back() -> None:
    story = Story(Policy(rolling=True, first=quarter()))
    story.up()
    new = next(i.instance_id for i in story.run.instances if i.phase is Phase.PLANNED)
    story.tell(Failed(new, "no model file", final=True))
    assert story.status == Status.ROLLING_BACK
    story.up()
    story.release()
    assert story.status == Status.IN_SERVICE
    assert story.serving == (4, 0)
    assert "no model file" in story.run.failure_reason


def test_a_crash_while_it_bakes_is_waited_for() -> None:
    story = Story(Policy(first=quarter(), wait_s=60))
    story.up()
    new = next(i.instance_id for i in story.run.instances if i.instance_id not in story.old)
    story.tell(Failed(new, "it crashed"))
    story.wait(200)
    assert story.shares == {0: 0.75, 1: 0.25}
    story.up()
    assert story.shares == {0: 0.0, 1: 1.0}


def test_deleting_ends_an_update_too() -> None:
    story = Story(Policy(first=quarter(), wait_s=60))
    story.up()
    story.tell(DeleteRequested())
    assert story.run.next_due is None
    story.release()
    assert story.status == Status.DELETED


def test_one_instance_is_enough_for_every_way() -> None:
    for policy in (
        Policy(first=quarter(), wait_s=1),
        Policy(first=quarter(), further=quarter(), wait_s=1),
        Policy(rolling=True, first=Size(1), wait_s=1),
    ):
        story = Story(policy, count=1)
        for _ in range(10):
            story.up()
            assert sum(story.serving)
            story.wait(2)
        assert story.status == Status.IN_SERVICE
        assert isinstance(story.run, EndpointRun)


@pytest.mark.parametrize("rolling", [False, True])
def test_a_shadow_goes_over_with_its_deployment(rolling: bool) -> None:
    """Each deployment's shadow has its part of that one's requests; a step's size counts the production variant's."""
    variants = (Variant("v", 2.0, 2), Variant("s", 1.0, 2, shadow=True))
    story = Story(Policy())
    story.run = create("i-0123456789ab", Deployment("one", variants), story.now)
    story.up()
    story.tell(
        UpdateRequested(Deployment("two", variants), Policy(rolling=rolling, first=Size(1), wait_s=10))
    )
    seen = []
    while story.status == Status.UPDATING:
        story.up()
        story.release()
        (serve,) = [c for c in demands(story.run) if isinstance(c, Serve)]
        shares = {(served.name, served.number): served.weight for served in serve.variants}
        if len(shares) == 4:
            seen.append((shares["v", 1], shares["s", 0], shares["s", 1]))
        story.wait(11)
    assert seen[0] == (0.5, 0.5, 0.5)
    assert story.run.current is not None
    assert [(v.name, v.wanted, v.shadow) for v in story.run.current.variants] == [
        ("v", 2, False),
        ("s", 2, True),
    ]
