"""How an update goes on: which part of the traffic is turned over when, and how it is taken back.

Blue/green updates start everything new, then turn traffic over in one or more turns, each watched for a while.
Rolling updates replace some instances at a time, so that they need little more than they had. Either way the
present deployment keeps what it needs to take everything back until the last watch is over. A shadow variant comes and
goes with its deployment, and sees copies of that one's part of the traffic.
"""

from __future__ import annotations

from dataclasses import replace

from sagesmith.lifecycle._endpoint_state import (
    Deployment,
    EndpointRun,
    Phase,
    Policy,
    Rollout,
    Status,
    Variant,
    instances_of,
)

__all__ = ["advance", "begin", "take_back"]


def begin(run: EndpointRun, deployment: Deployment, policy: Policy, at: float) -> EndpointRun:
    """Return *run* with *deployment* coming up, to go over to it by *policy*."""
    number = run.current.number + 1 if run.current is not None else 0
    deployment = replace(deployment, number=number)
    if policy.rolling and policy.first is not None:
        held = [replace(v, held=v.count - policy.first.of(v.count)) for v in deployment.variants]
        deployment = replace(deployment, variants=tuple(held))
    return replace(
        run,
        status=Status.UPDATING,
        pending=deployment,
        pending_since=at,
        rollout=Rollout(policy, began=at),
        failure_reason="",
    )


def advance(run: EndpointRun, at: float) -> EndpointRun:
    """Return *run* one step further, if one is due at time *at*; *run* itself if none is."""
    pending, rollout = run.pending, run.rollout or Rollout()
    if pending is None:
        return run
    if rollout.back:
        return _back(run, rollout)
    if rollout.policy.timeout_s and at >= rollout.began + rollout.policy.timeout_s:
        return take_back(run, f"The update took longer than {rollout.policy.timeout_s:g} s.")
    if rollout.until is not None:
        if at < rollout.until:
            return run
        if not pending.complete:  # an instance was lost meanwhile
            return replace(run, rollout=replace(rollout, until=None))
    elif not pending.complete:
        return run
    if rollout.share >= 1.0 or run.current is None:
        return _promote(run, pending)
    if rollout.policy.rolling:
        return _roll(run, run.current, pending, rollout, at)
    has_traffic = sum(v.count for v in pending.variants if not v.shadow)
    return replace(run, rollout=_turn(rollout, has_traffic, at))


def take_back(run: EndpointRun, reason: str) -> EndpointRun:
    """Return *run* with its update given up; what served before goes on serving."""
    rollout, reason = run.rollout or Rollout(), reason[:1024]
    if rollout.back or run.pending is None:
        return run
    if run.current is not None and any(v.held for v in run.current.variants):
        kept, ending = _shrink(run.pending, 1.0 - rollout.share)
        return replace(
            run,
            status=Status.ROLLING_BACK,
            rollout=replace(rollout, back=True, until=None),
            failure_reason=reason,
            current=_less_held(run.current, rollout.policy),
            pending=kept,
            ending=tuple(dict.fromkeys((*run.ending, *ending))),
        )
    # Instances that had traffic are let go of before the endpoint counts as it was.
    served = Status.ROLLING_BACK if rollout.share else Status.IN_SERVICE
    return _drop_pending(
        replace(run, status=served if run.current is not None else Status.FAILED, failure_reason=reason)
    )


def _turn(rollout: Rollout, count: int, at: float) -> Rollout:
    policy = rollout.policy
    size = policy.further if rollout.share else policy.first
    share = 1.0 if size is None else min(1.0, rollout.share + size.share(count))
    share = 1.0 if share > 0.999 else share  # ten steps of a tenth
    last = policy.termination_wait_s if share >= 1.0 else 0.0
    return replace(rollout, share=share, until=at + policy.wait_s + last)


def _roll(
    run: EndpointRun, current: Deployment, pending: Deployment, rollout: Rollout, at: float
) -> EndpointRun:
    progress = sum(v.wanted for v in pending.variants) / max(1, _count(pending))
    policy = rollout.policy
    if progress > rollout.share:
        last = policy.termination_wait_s if progress >= 1.0 else 0.0
        return replace(run, rollout=replace(rollout, share=progress, until=at + policy.wait_s + last))
    batch = policy.first
    grown = tuple(
        replace(v, held=max(0, v.held - (batch.of(v.count) if batch else v.count))) for v in pending.variants
    )
    kept, ending = _shrink(current, rollout.share)
    return replace(
        run,
        current=kept,
        pending=replace(pending, variants=grown),
        ending=(*run.ending, *ending),
        rollout=replace(rollout, until=None),
    )


def _back(run: EndpointRun, rollout: Rollout) -> EndpointRun:
    current, pending = run.current, run.pending
    if current is None or pending is None or not current.complete:
        return run
    share = sum(v.held for v in current.variants) / max(1, _count(current))
    if not share:
        return _drop_pending(run)
    kept, ending = _shrink(pending, 1.0 - share)
    return replace(
        run,
        current=_less_held(current, rollout.policy),
        pending=kept,
        ending=(*run.ending, *ending),
        rollout=replace(rollout, share=share),
    )


def _less_held(deployment: Deployment, policy: Policy) -> Deployment:
    """Let the next batch of what a rolling update ended come up again."""
    size = policy.further
    variants = (
        replace(v, held=max(0, v.held - (size.of(v.count) if size is not None else v.count)))
        for v in deployment.variants
    )
    return replace(deployment, variants=tuple(variants))


def _shrink(deployment: Deployment, part: float) -> tuple[Deployment, list[str]]:
    """Hold *part* of each variant's instances (never all), those that do not serve first; return whom that ends."""
    variants: list[Variant] = []
    ending: list[str] = []
    for variant in deployment.variants:
        held = max(variant.held, min(variant.count - 1, int(variant.count * part + 1e-9)))
        ranked = sorted(variant.instances, key=lambda i: i.phase is Phase.READY, reverse=True)
        kept = {i.instance_id for i in ranked[: variant.count - held]}
        ending += [
            i.instance_id
            for i in variant.instances
            if i.instance_id not in kept and i.phase is not Phase.PAUSED
        ]
        instances = tuple(i for i in variant.instances if i.instance_id in kept)
        variants.append(replace(variant, held=held, instances=instances))
    return replace(deployment, variants=tuple(variants)), ending


def _promote(run: EndpointRun, pending: Deployment) -> EndpointRun:
    old = replace(run, pending=None).instance_ids
    return replace(
        run,
        status=Status.IN_SERVICE,
        current=pending,
        pending=None,
        rollout=None,
        ending=tuple(dict.fromkeys(old)),
    )


def _drop_pending(run: EndpointRun) -> EndpointRun:
    paused = {i.instance_id for _, _, i in instances_of(run) if i.phase is Phase.PAUSED}
    gone = [
        i.instance_id
        for v in (run.pending.variants if run.pending else ())
        for i in v.instances
        if i.instance_id not in paused
    ]
    return replace(run, pending=None, rollout=None, ending=tuple(dict.fromkeys((*run.ending, *gone))))


def _count(deployment: Deployment) -> int:
    return sum(v.count for v in deployment.variants)
