"""An instance with several containers: to its variant a link like any other, made of one link for each container.

In a *serial* chain a request goes through all containers in turn: what one answers is the next one's body, and its
content type goes along; the client's `Accept` is for the last. An answer other than 2xx ends it there. In a *direct*
one the request names its container. What was written to a container and lost is never sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from sagesmith.errors import AwsError
from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_link import Invocation, Link

if TYPE_CHECKING:
    from sagesmith.hosting._gateway_table import AnyLink, Variant

__all__ = ["TARGET_CONTAINER", "ChainLink"]

TARGET_CONTAINER: Final = b"target-container="
_FEW: Final = 8


class ChainLink:
    """The containers of one instance. Has what `Link` has for variants and the gateway.

    Args:
        address: ``serial|name=address|...`` or ``direct|...``, as an instance's `Ready` says.
        make: makes the link to one container.
    """

    def __init__(
        self,
        instance_id: str,
        address: str,
        owner: Variant,
        forget: Callable[[ChainLink], None],
        max_in_flight: int,
        make: Callable[[str, str, _Stage, Callable[[Link], None], int], Link],
    ) -> None:
        mode, *places = address.split("|")
        self.instance_id = instance_id
        self.address = address
        self.owner = owner
        self.direct = mode == "direct"
        self.waiting: dict[int, _Step] = {}
        self.queue: tuple[Invocation, ...] = ()
        self.late: frozenset[int] = frozenset()
        self.queued_bytes = 0
        self.retired = False
        self.limit = self._most = max_in_flight
        self._forget = forget
        self._settled: list[asyncio.Future[None]] = []
        self._stages: list[_Stage] = []
        for number, place in enumerate(places):
            name, _, where = place.partition("=")
            stage = _Stage(self, number, name)
            stage.link = make(f"{instance_id}/{name}", where, stage, stage.forget, max_in_flight)
            self._stages.append(stage)
        self._alive = len(self._stages)

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent: every container can be reached."""
        return not self.retired and all(stage.link.usable for stage in self._stages)

    @property
    def connecting(self) -> bool:
        """Whether what cannot be reached yet is being connected to."""
        return all(stage.link.usable or stage.link.connecting for stage in self._stages)

    def send(self, invocation: Invocation) -> None:
        """Send *invocation* to the first container, or to the one it names."""
        path, content_type, accept, *rest = invocation.head.split(b"\0")
        step = _Step(invocation, accept)
        number = 0
        if self.direct:
            named = next((f.partition(b"=")[2] for f in rest if f.startswith(TARGET_CONTAINER)), b"").decode()
            names = [stage.name for stage in self._stages]
            if named not in names:
                invocation.fail(errors.container_not_found(self.owner.endpoint.name, named, names))
                return
            number = names.index(named)
            step.is_last = True
        elif len(self._stages) > 1:
            step.head = b"\0".join((path, content_type, b"", *rest))
        step.is_last = step.is_last or number + 1 == len(self._stages)
        self.waiting[id(step)] = step
        invocation.sent = step.began = monotonic()
        self._stages[number].link.send(step)

    def expire(self, before: float) -> list[Invocation]:
        """Remove and return what came to the instance *before* this time and is not answered."""
        expired = [
            invocation
            for stage in self._stages
            for invocation in stage.link.expire(before)
            if self.waiting.pop(id(invocation), None) is not None
        ]
        self._settle()
        return [step.origin for step in expired if isinstance(step, _Step)]

    def pace(self, overdue: float) -> None:
        """Set `limit`; see `Link.pace`."""
        self.limit, count = self._most, len(self.waiting)
        if count >= _FEW:
            middle = next(islice(self.waiting.values(), count // 2, None))
            if middle.began < overdue:
                self.limit = count

    async def settled(self) -> None:
        """Return when nothing is in flight any more."""
        if self.waiting:
            future = asyncio.get_running_loop().create_future()
            self._settled.append(future)
            await future

    def retire(self) -> None:
        """Take no new requests, close when those in flight are answered, and never connect again."""
        self.retired = True
        self.owner.refresh()
        self._settle()

    def abort(self) -> None:
        """Close at once; what is in flight fails."""
        self.retired = True
        for stage in self._stages:
            stage.link.abort()

    # ---- what the containers' links report -------------------------------------------------------------

    def pass_on(self, stage: _Stage, step: _Step, status: int, head: bytes, body: bytes, now: float) -> None:
        """Take a container's answer to the next container, or to the client."""
        if not step.is_last and 200 <= status < 300:
            content_type, _, rest = head.partition(b"\0")
            path, _, _, *others = step.origin.head.split(b"\0")
            number = stage.number + 1
            step.is_last = number + 1 == len(self._stages)
            accept = step.accept if step.is_last else b""
            if (
                others and not others[0]
            ):  # attributes that a container set go along unless the client sent some
                others[0] = rest.partition(b"\0")[0]
            step.head, step.body = b"\0".join((path, content_type, accept, *others)), body
            self._stages[number].link.send(step)
            return
        if self.waiting.pop(id(step), None) is not None:
            self.owner.answered(self, step.origin, status, head, body, now)
        self._settle()

    def failed(self, step: _Step) -> None:
        """A container was lost with the request."""
        if self.waiting.pop(id(step), None) is not None:
            self.owner.lost(self, step.origin)
        self._settle()

    def unsent(self, stage: _Stage, step: _Step) -> None:
        """A container could not be sent the request: the first one's may go elsewhere."""
        if stage.number and not self.direct:
            self.failed(step)
        elif self.waiting.pop(id(step), None) is not None:
            self.owner.resubmit(step.origin)
            self._settle()

    def stage_forgotten(self) -> None:
        """A retired container's link is closed."""
        self._alive -= 1
        if not self._alive:
            self._forget(self)

    def _settle(self) -> None:
        if self.waiting:
            return
        for future in self._settled:
            if not future.done():
                future.set_result(None)
        self._settled.clear()
        if self.retired:
            for stage in self._stages:
                if not stage.link.retired:
                    stage.link.retire()


class _Step(Invocation):
    """A request on its way through the containers; `origin` is the client's."""

    __slots__ = ("accept", "began", "is_last", "origin")

    def __init__(self, origin: Invocation, accept: bytes) -> None:
        super().__init__(origin.head, origin.body, origin.arrived)
        self.origin = origin
        self.accept = accept
        self.began = 0.0
        self.is_last = False

    def fail(self, error: AwsError) -> None:
        self.origin.fail(error)


class _Stage:
    """One container: the owner of its link."""

    link: Link

    def __init__(self, chain: ChainLink, number: int, name: str) -> None:
        self.chain = chain
        self.number = number
        self.name = name

    def refresh(self) -> None:
        """The container can be reached, or cannot any more."""
        if len(self.chain._stages) > self.number:  # not while the chain is being made
            self.chain.owner.refresh()

    def answered(
        self, link: AnyLink, invocation: Invocation, status: int, head: bytes, body: bytes, now: float
    ) -> None:
        """The container answered."""
        self.chain.pass_on(self, cast(_Step, invocation), status, head, body, now)

    def lost(self, link: AnyLink, invocation: Invocation) -> None:
        """The connection broke with the request."""
        self.chain.failed(cast(_Step, invocation))

    def resubmit(self, invocation: Invocation) -> None:
        """The request could not be sent."""
        self.chain.unsent(self, cast(_Step, invocation))

    def forget(self, link: Link) -> None:
        """The link is closed for good."""
        self.chain.stage_forgotten()
