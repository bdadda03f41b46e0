"""Serverless variants: containers that come with the requests and go when they are idle.

A container is an instance like any other; what differs is how many there should be. One comes up when the variant
is deployed and proves that the model can be served. From then on `count` follows the demand, between the
provisioned concurrency and the maximum concurrency, and a container beyond the provisioned ones that is lost is
not replaced: the next request does that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from sagesmith.lifecycle._endpoint_state import Deployment, EndpointRun, Instance, Phase, Serverless, Variant

__all__ = ["discard", "is_spare", "prove", "resize", "serverless_variant", "want"]


def serverless_variant(
    name: str, weight: float, serverless: Serverless, details: dict[str, object]
) -> Variant:
    """Return a variant as it is deployed: with the containers that are provisioned, or one to prove that it serves."""
    return Variant(name, weight, max(1, serverless.provisioned), details, serverless=serverless)


def is_spare(variant: Variant) -> bool:
    """Whether the variant may lose a container without getting another."""
    serverless = variant.serverless
    return serverless is not None and serverless.proven and len(variant.instances) > serverless.provisioned


def prove(run: EndpointRun, instance_id: str) -> EndpointRun:
    """Note that the container *instance_id* serves, so that its variant needs no other to count as complete."""

    def proven(variant: Variant) -> Variant:
        known = variant.serverless
        if known is None or known.proven or all(i.instance_id != instance_id for i in variant.instances):
            return variant
        return replace(variant, serverless=replace(known, proven=True))

    return _change(run, proven)[0]


def want(run: EndpointRun, name: str, number: int, concurrency: int) -> EndpointRun:
    """Let the variant *name* of the deployment *number* have containers for *concurrency* requests at a time.

    Those that serve are left to :func:`discard`; what has not begun to start, and is needed no more, is given up.
    """

    def wanted(variant: Variant) -> Variant:
        serverless = variant.serverless
        if serverless is None or variant.name != name:
            return variant
        count = max(min(concurrency, serverless.max_concurrency), variant.required)
        if count >= len(variant.instances):
            return replace(variant, count=count)
        surplus = len(variant.instances) - count
        planned = [i.instance_id for i in variant.instances if i.phase is Phase.PLANNED][-surplus:]
        return _without(variant, planned)

    return _end(*_change(run, wanted, number=number))


def discard(run: EndpointRun, instance_ids: Collection[str], *, replaced: bool = False) -> EndpointRun:
    """End the containers *instance_ids*, of each variant no more than it can spare.

    Those to be *replaced* end in any case; others start in their places where provisioned concurrency demands it.
    """

    def discarded(variant: Variant) -> Variant:
        serverless = variant.serverless
        if serverless is None:
            return variant
        chosen = [i.instance_id for i in variant.instances if i.instance_id in instance_ids]
        if not replaced:
            room = len(variant.instances) - serverless.provisioned if serverless.proven else 0
            chosen = chosen[: max(0, room)]
        return _without(variant, chosen)

    return _end(*_change(run, discarded))


def resize(variant: Variant, concurrency: tuple[int | None, int | None]) -> Variant:
    """Return *variant* with another maximum and provisioned concurrency (None: as it is).

    Containers that are then too many end when they are idle.
    """
    serverless = variant.serverless
    if serverless is None:
        return variant
    most, provisioned = concurrency
    changed = replace(
        serverless,
        max_concurrency=serverless.max_concurrency if most is None else most,
        provisioned=serverless.provisioned if provisioned is None else provisioned,
    )
    return replace(variant, serverless=changed, count=max(len(variant.instances), changed.provisioned))


def _without(variant: Variant, instance_ids: Collection[str]) -> Variant:
    kept = tuple(i for i in variant.instances if i.instance_id not in instance_ids)
    provisioned = variant.serverless.provisioned if variant.serverless is not None else 0
    return replace(variant, instances=kept, count=max(len(kept), provisioned))


def _change(
    run: EndpointRun, change: Callable[[Variant], Variant], *, number: int | None = None
) -> tuple[EndpointRun, list[Instance]]:
    """Return *run* with its variants changed (of the deployment *number* only, if given), and the instances that left."""
    left: list[Instance] = []
    for part in ("current", "pending"):
        deployment: Deployment | None = getattr(run, part)
        if deployment is None or number not in (None, deployment.number):
            continue
        variants = tuple(change(v) for v in deployment.variants)
        if variants != deployment.variants:
            kept = {i.instance_id for v in variants for i in v.instances}
            left += [i for v in deployment.variants for i in v.instances if i.instance_id not in kept]
            run = replace(run, **{part: replace(deployment, variants=variants)})  # type: ignore[arg-type]
    return run, left


def _end(run: EndpointRun, left: list[Instance]) -> EndpointRun:
    ending = [i.instance_id for i in left if i.phase is not Phase.PAUSED]
    return replace(run, ending=tuple(dict.fromkeys((*run.ending, *ending)))) if ending else run
