"""An instance that is more than one connection: to its variant a link like any other, made of links to its parts.

What all such have in common: who waits for an answer, how much there may be, and how it ends. How a request goes
through the parts is for the subclasses to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from sagesmith.errors import AwsError
from sagesmith.hosting._gateway_link import Invocation, Link, Owner

if TYPE_CHECKING:
    from sagesmith.hosting._gateway_table import AnyLink, Variant

__all__ = ["Composite", "MakeLink", "Part", "Step"]

MakeLink: TypeAlias = Callable[[str, str, Owner, Callable[[Any], None], int], Link]
"""Makes the link to one part: (id, address, owner, forget, most in flight)."""

_FEW: Final = 8


class Composite:
    """The parts of one instance. Has what `Link` has for variants and the gateway."""

    def __init__(
        self,
        instance_id: str,
        address: str,
        owner: Variant,
        forget: Callable[[Any], None],
        max_in_flight: int,
        make: MakeLink,
    ) -> None:
        self.instance_id = instance_id
        self.address = address
        self.owner = owner
        self.waiting: dict[int, Step] = {}
        self.queue: tuple[Invocation, ...] = ()
        self.late: frozenset[int] = frozenset()
        self.queued_bytes = 0
        self.retired = False
        self.limit = self._most = max_in_flight
        self._make = make
        self._forget = forget
        self._settled: list[asyncio.Future[None]] = []
        self._forgotten = False

    # ---- for subclasses --------------------------------------------------------------------------------

    @property
    def parts(self) -> Sequence[Part]:
        """All parts there are now."""
        raise NotImplementedError

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent."""
        raise NotImplementedError

    @property
    def connecting(self) -> bool:
        """Whether what cannot be reached yet is being connected to."""
        raise NotImplementedError

    def send(self, invocation: Invocation) -> None:
        """Send *invocation* to the part that it is for."""
        raise NotImplementedError

    def answered(self, part: Part, step: Step, status: int, head: bytes, body: bytes, now: float) -> None:
        """Take a part's answer: this one passes it on as the instance's."""
        if self.waiting.pop(id(step), None) is not None:
            self.owner.answered(cast("AnyLink", self), step.origin, status, head, body, now)
        self._settle()

    def part(self, part: Part, step: Step, head: bytes, body: bytes, more: Callable[[int], None]) -> None:
        """Take a part of an answer that a part of the instance gives: it is the instance's."""
        step.began = inf  # its limit in time is another
        self.owner.part(cast("AnyLink", self), step.origin, head, body, more)

    def unsent(self, part: Part, step: Step) -> None:
        """A part could not be sent the request: this one lets the variant send it elsewhere."""
        if self.waiting.pop(id(step), None) is not None:
            self.owner.resubmit(step.origin)
            self._settle()

    # ---- what variants and the gateway use -------------------------------------------------------------

    def expire(self, before: float) -> list[Invocation]:
        """Remove and return what came to a part *before* this time and is not answered."""
        expired = [
            invocation
            for part in self.parts
            for invocation in part.link.expire(before)
            if self.waiting.pop(id(invocation), None) is not None
        ]
        self._settle()
        return [step.origin for step in expired if isinstance(step, Step)]

    def pace(self, overdue: float) -> None:
        """Set `limit`; see `Link.pace`."""
        self.limit, count = self._most, len(self.waiting)
        if count >= _FEW:
            middle = next(islice(self.waiting.values(), count // 2, None))
            if middle.began < overdue:
                self.limit = count

    def cancel(self, invocation: Invocation) -> bool:
        """Forget *invocation*, for which nobody waits any more; return whether it was here."""
        step = next((step for step in self.waiting.values() if step.origin is invocation), None)
        if step is None:
            return False
        del self.waiting[id(step)]
        self.cancelled(step)
        self._settle()
        return True

    def cancelled(self, step: Step) -> None:
        """Have the part that *step* is at forget it."""
        any(part.link.cancel(step) for part in self.parts)

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
        for part in self.parts:
            part.link.abort()

    # ---- inside ----------------------------------------------------------------------------------------

    def lost(self, step: Step) -> None:
        """A part was lost with the request."""
        if self.waiting.pop(id(step), None) is not None:
            self.owner.lost(cast("AnyLink", self), step.origin)
        self._settle()

    def part_forgotten(self, part: Part) -> None:
        """A retired part's link is closed."""
        part.closed = True
        if self.retired and all(each.closed for each in self.parts) and not self._forgotten:
            self._forgotten = True
            self._forget(self)

    def _settle(self) -> None:
        if self.waiting:
            return
        for future in self._settled:
            if not future.done():
                future.set_result(None)
        self._settled.clear()
        if self.retired:
            for part in list(self.parts):
                if not part.link.retired:
                    part.link.retire()


class Step(Invocation):
    """A request on its way to a part; `origin` is the client's, `began` when the instance got it, `tag` the whole's own."""

    __slots__ = ("began", "is_last", "origin", "tag")

    def __init__(self, origin: Invocation, began: float) -> None:
        super().__init__(origin.head, origin.body, origin.arrived)
        self.origin = origin
        self.began = origin.sent = began
        self.tag = b""
        self.is_last = True

    def fail(self, error: AwsError) -> None:
        self.origin.fail(error)


class Part:
    """One part of an instance: the owner of its link."""

    def __init__(self, whole: Composite, name: str, address: str) -> None:
        self.whole = whole
        self.name = name
        self.closed = False
        self._made = False
        self.link = whole._make(
            f"{whole.instance_id}/{name}", address, self, lambda _: whole.part_forgotten(self), whole._most
        )
        self._made = True

    def refresh(self) -> None:
        """The part can be reached, or cannot any more."""
        if self._made:
            self.whole.owner.refresh()

    def answered(
        self, link: AnyLink, invocation: Invocation, status: int, head: bytes, body: bytes, now: float
    ) -> None:
        """The part answered."""
        self.whole.answered(self, cast(Step, invocation), status, head, body, now)

    def part(
        self, link: AnyLink, invocation: Invocation, head: bytes, body: bytes, more: Callable[[int], None]
    ) -> None:
        """A part of the part's answer came."""
        self.whole.part(self, cast(Step, invocation), head, body, more)

    def lost(self, link: AnyLink, invocation: Invocation) -> None:
        """The connection broke with the request."""
        self.whole.lost(cast(Step, invocation))

    def resubmit(self, invocation: Invocation) -> None:
        """The request could not be sent."""
        self.whole.unsent(self, cast(Step, invocation))
