"""An instance with many models, of which those are loaded that are asked for.

The instance's agent loads and unloads (paths ``/models/load`` and ``/models/unload``, the model's name as the body)
and says where a loaded model answers. It never unloads by itself: it says 507 when there is no memory, and then the
model that was not used for longest, and has nothing in flight, goes first.

Where nothing is to be kept loaded (``|uncached``) a model leaves when its last request is answered.

Requests wait while their model is loaded; what waits too long is told `ModelNotReadyException`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sagesmith.errors import AwsError
from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_composite import Composite, MakeLink, Part, Step
from sagesmith.hosting._gateway_link import Invocation

if TYPE_CHECKING:
    from sagesmith.hosting._gateway_table import Variant

__all__ = ["ModelsLink"]

_TARGET: Final = b"target-model="
_NO_MEMORY: Final = 507
_NOT_FOUND: Final = 404
_MOST_WAITING: Final = 200


class ModelsLink(Composite):
    """The models of one instance; its address is ``models|`` and the agent's, and perhaps ``|uncached``."""

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
        self._models: OrderedDict[str, _Model] = OrderedDict()  # the last used last
        self._leaving: list[Part] = []
        _, agent, *settings = address.split("|")
        self._cached = "uncached" not in settings
        self._agent = Part(self, "agent", agent)

    @property
    def parts(self) -> Sequence[Part]:
        loaded = [model.part for model in self._models.values() if model.part is not None]
        return [self._agent, *loaded, *self._leaving]

    @property
    def usable(self) -> bool:
        return not self.retired and self._agent.link.usable

    @property
    def connecting(self) -> bool:
        return self._agent.link.connecting

    @property
    def loaded(self) -> int:
        """How many models are loaded."""
        return sum(model.part is not None for model in self._models.values())

    def send(self, invocation: Invocation) -> None:
        """Send *invocation* to the model it names, once that is loaded."""
        fields = invocation.head.split(b"\0")[4:]
        name = next((f.partition(b"=")[2] for f in fields if f.startswith(_TARGET)), b"").decode()
        if not name:
            invocation.fail(errors.no_target_model(self.owner.endpoint.name))
            return
        model = self._models.get(name)
        if model is not None and model.part is not None:
            link = model.part.link
            if not link.usable and not link.connecting:  # it crashed and does not come back
                self._drop(model)
                model = None
        if model is None:
            model = self._models[name] = _Model(name)
            self._tell(b"/models/load", model)
        if len(model.waiting) >= _MOST_WAITING:
            invocation.fail(errors.model_not_ready(name))
            return
        self._models.move_to_end(name)
        step = Step(invocation, monotonic())
        self.owner.counters.note("ModelCacheHit", "None", float(model.part is not None))
        self.waiting[id(step)] = step
        model.in_flight += 1
        step.tag = name.encode()
        if model.part is None:
            model.waiting.append(step)
        else:
            model.part.link.send(step)

    def expire(self, before: float) -> list[Invocation]:
        """Remove and return what is overdue; what waited for its model is told so here."""
        for model in list(self._models.values()):
            overdue = [step for step in model.waiting if step.began < before]
            if overdue:
                model.waiting = [step for step in model.waiting if step.began >= before]
                for step in overdue:
                    self._end(step, errors.model_not_ready(model.name))
        for order in self._agent.link.expire(before):
            if isinstance(order, _Order):  # loading may take longer than an answer: ask again
                self._agent.link.send(order.again())
        count = len(self.waiting)
        expired = super().expire(before)
        if len(self.waiting) < count:  # only the steps that are still there count
            for model in list(self._models.values()):
                name = model.name.encode()
                model.in_flight = sum(step.tag == name for step in self.waiting.values())
                self._unload_unless_cached(model)
        return expired

    def answered(self, part: Part, step: Step, status: int, head: bytes, body: bytes, now: float) -> None:
        """Take a model's answer to the client, or what the agent says."""
        if isinstance(step, _Order):
            step.done(status, body)
            return
        self._leave(step)
        super().answered(part, step, status, head, body, now)

    def lost(self, step: Step) -> None:
        """A model was lost with the request, or the agent with what it was told."""
        if isinstance(step, _Order):
            step.done(0, b"the instance was lost")
            return
        self._leave(step)
        super().lost(step)

    def unsent(self, part: Part, step: Step) -> None:
        """A model or the agent cannot be reached."""
        if isinstance(step, _Order):
            step.done(0, b"the instance cannot be reached")
            return
        self._leave(step)
        super().unsent(part, step)

    def cancelled(self, step: Step) -> None:
        """Have the model forget *step*, or what waits for it to be loaded."""
        model = self._models.get(step.tag.decode())
        if model is not None and step in model.waiting:
            model.waiting.remove(step)
        else:
            super().cancelled(step)
        self._leave(step)

    # ---- loading and unloading -------------------------------------------------------------------------

    def _tell(self, path: bytes, model: _Model, then: Callable[[int, bytes], None] | None = None) -> None:
        order = _Order(path, model.name, then or (lambda status, body: self._loaded(model, status, body)))
        self._agent.link.send(order)

    def _loaded(self, model: _Model, status: int, body: bytes) -> None:
        if self._models.get(model.name) is not model:
            return
        if status == 200:
            address, _, fetched_us = body.decode().partition(" ")
            model.part = Part(self, model.name, address)
            waiting, model.waiting = model.waiting, []
            now, counters = monotonic(), self.owner.counters
            fetched_s = float(fetched_us or 0) / 1e6
            counters.note("LoadedModelCount", "None", float(self.loaded))
            counters.note("ModelDownloadingTime", "Microseconds", round(fetched_s * 1e6, -3))
            counters.note(
                "ModelLoadingTime", "Microseconds", round((now - model.since - fetched_s) * 1e6, -3)
            )
            for step in waiting:
                counters.note("ModelLoadingWaitTime", "Microseconds", round((now - step.began) * 1e6, -3))
                model.part.link.send(step)
            return
        if status == _NO_MEMORY and self._make_room(model):
            return
        del self._models[model.name]
        text = body.decode("utf-8", "replace")
        for step in model.waiting:
            if status == _NOT_FOUND:
                self._end(step, errors.model_not_found(text))
            elif status in (0, _NO_MEMORY):
                self._end(step, errors.no_room(model.name, text))
            else:
                self._end(step, self.owner.model_error(self, status, text))

    def _make_room(self, wanted: _Model) -> bool:
        """Unload the model that was not used for longest and has nothing to do; then load *wanted* again."""
        idle = next((m for m in self._models.values() if m.part is not None and not m.in_flight), None)
        if idle is None:
            return False
        self._unload(idle, lambda: self._tell(b"/models/load", wanted))
        return True

    def _unload(self, model: _Model, then: Callable[[], None] = lambda: None) -> None:
        began = monotonic()

        def unloaded(status: int, body: bytes) -> None:
            micros = round((monotonic() - began) * 1e6, -3)
            self.owner.counters.note("ModelUnloadingTime", "Microseconds", micros)
            then()

        self._drop(model)
        self._tell(b"/models/unload", model, unloaded)

    def _drop(self, model: _Model) -> None:
        self._models.pop(model.name, None)
        if model.part is not None:
            self._leaving.append(model.part)
            model.part.link.retire()

    def part_forgotten(self, part: Part) -> None:
        """A link is closed for good."""
        super().part_forgotten(part)
        if part in self._leaving:
            self._leaving.remove(part)

    def _end(self, step: Step, error: AwsError) -> None:
        if self.waiting.pop(id(step), None) is not None:
            self._leave(step)
            step.origin.fail(error)
        self._settle()

    def _leave(self, step: Step) -> None:
        model = self._models.get(step.tag.decode())
        if model is not None and model.in_flight:
            model.in_flight -= 1
            self._unload_unless_cached(model)

    def _unload_unless_cached(self, model: _Model) -> None:
        if not self._cached and not model.in_flight and model.part is not None:
            self._unload(model)


class _Model:
    """A model that is loaded, or is being loaded as long as it has no part."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.part: Part | None = None
        self.waiting: list[Step] = []
        self.in_flight = 0
        self.since = monotonic()


class _Order(Step):
    """What the agent is told, and what is done with its answer."""

    __slots__ = ("done", "name", "path")

    def __init__(self, path: bytes, name: str, done: Callable[[int, bytes], None]) -> None:
        Invocation.__init__(self, path + b"\0\0\0", name.encode(), monotonic())
        self.path = path
        self.name = name
        self.origin = self
        self.began = self.arrived
        self.done = done

    def again(self) -> _Order:
        """Return the same order, to be sent again."""
        return _Order(self.path, self.name, self.done)

    def fail(self, error: AwsError) -> None:
        self.done(0, error.message.encode())
