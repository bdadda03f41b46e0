"""An instance with several containers.

In a *serial* chain a request goes through all containers in turn: what one answers is the next one's body, and its
content type goes along; the client's `Accept` is for the last. An answer other than 2xx ends it there. In a *direct*
one the request names its container. What was written to a container and lost is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_composite import Composite, MakeLink, Part, Step
from sagesmith.hosting._gateway_link import Invocation

if TYPE_CHECKING:
    from sagesmith.hosting._gateway_table import Variant

__all__ = ["ChainLink"]

_TARGET: Final = b"target-container="
_WHOLE: Final = b"/invocations"  # only the last container's answer may come in parts


class ChainLink(Composite):
    """The containers of one instance; its address is ``serial|name=address|...`` or ``direct|...``."""

    def __init__(
        self,
        instance_id: str,
        address: str,
        owner: Variant,
        forget: Callable[[Any], None],
        max_in_flight: int,
        make: MakeLink,
    ) -> None:
        super().__init__(instance_id, address, owner, forget, max_in_flight, make)
        mode, *places = address.split("|")
        self._direct = mode == "direct"
        self._parts: list[Part] = []
        for place in places:
            name, _, where = place.partition("=")
            self._parts.append(Part(self, name, where))

    @property
    def parts(self) -> Sequence[Part]:
        return self._parts

    @property
    def usable(self) -> bool:
        return not self.retired and all(part.link.usable for part in self._parts)

    @property
    def connecting(self) -> bool:
        return all(part.link.usable or part.link.connecting for part in self._parts)

    def send(self, invocation: Invocation) -> None:
        """Send *invocation* to the first container, or to the one it names."""
        step = Step(invocation, monotonic())
        part = self._parts[0]
        _, content_type, step.tag, *rest = invocation.head.split(b"\0")
        if self._direct:
            named = next((f.partition(b"=")[2] for f in rest if f.startswith(_TARGET)), b"").decode()
            found = [each for each in self._parts if each.name == named]
            if not found:
                names = [each.name for each in self._parts]
                invocation.fail(errors.container_not_found(self.owner.endpoint.name, named, names))
                return
            part = found[0]
        elif len(self._parts) > 1:
            step.is_last = False
            step.head = b"\0".join((_WHOLE, content_type, b"", *rest))
        self.waiting[id(step)] = step
        part.link.send(step)

    def answered(self, part: Part, step: Step, status: int, head: bytes, body: bytes, now: float) -> None:
        """Take a container's answer to the next container, or to the client."""
        if step.is_last or not 200 <= status < 300:
            super().answered(part, step, status, head, body, now)
            return
        content_type, _, rest = head.partition(b"\0")
        path, _, _, *others = step.origin.head.split(b"\0")
        number = self._parts.index(part) + 1
        step.is_last = number + 1 == len(self._parts)
        if others and not others[0]:  # attributes that a container set go along unless the client sent some
            others[0] = rest.partition(b"\0")[0]
        accept = step.tag if step.is_last else b""
        path = path if step.is_last else _WHOLE
        step.head, step.body = b"\0".join((path, content_type, accept, *others)), body
        self._parts[number].link.send(step)

    def unsent(self, part: Part, step: Step) -> None:
        """A container could not be sent the request: the first one's may go elsewhere."""
        if part is self._parts[0] or self._direct:
            super().unsent(part, step)
        else:
            self.lost(step)
