"""Several hosts train one model: XGBoost's own tracker on the first host, its collective on all.

The hosts meet first (see `sagesmith_toolkit.rendezvous`), so that the tracker can take any free port. A host
without data cannot take part in the library's collective; it is left out, and the others work without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.logs import info

if TYPE_CHECKING:
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["Part", "agree", "collective"]

_TIMEOUT_S = 300


class Part:
    """This host's part in the work.

    `takes_part` is whether it has data, `is_first` whether it writes the model, `n_features` the width of the data.
    """

    def __init__(self, rank: int, working: list[int], n_features: int, validates: bool) -> None:
        self.rank = rank
        self.working = working
        self.n_features = n_features
        self.validates = validates

    @property
    def takes_part(self) -> bool:
        """Whether this host has data."""
        return self.rank in self.working

    @property
    def is_first(self) -> bool:
        """Whether this host writes the model."""
        return self.rank == self.working[0]


def agree(hosts: Rendezvous | None, n_rows: int, n_features: int, n_validation_rows: int) -> Part:
    """Return what the hosts agreed on, each having said how much data it has.

    Raises:
        CustomerError: no host has data, or some have validation data while others have none.
    """
    mine = {"rows": n_rows, "features": n_features, "validation": n_validation_rows}
    all_hosts = (
        [mine] if hosts is None else [json.loads(m) for m in hosts.exchange(json.dumps(mine).encode())]
    )
    working = [rank for rank, said in enumerate(all_hosts) if said["rows"]]
    if not working:
        raise CustomerError("There is no row in the channel 'train'; check its S3Uri.")
    idle = [rank for rank in range(len(all_hosts)) if rank not in working]
    if idle and hosts is not None:
        names = ", ".join(hosts.hosts[rank] for rank in idle)
        info(
            f"No training data on {names}: training goes on without. Give at least one file for each instance."
        )
    validates = all(all_hosts[rank]["validation"] for rank in working)
    if not validates and any(said["validation"] for said in all_hosts):
        info("Some instances have no validation data: the validation channel is not used.", "WARNING")
    rank = 0 if hosts is None else hosts.rank
    return Part(rank, working, max(said["features"] for said in all_hosts), validates)


@contextmanager
def collective(hosts: Rendezvous | None, part: Part) -> Iterator[None]:
    """Within, the library's training is that of all working hosts together."""
    if hosts is None or len(part.working) < 2:
        if hosts is not None:
            hosts.broadcast(b"{}")
        yield
        return
    from xgboost.collective import CommunicatorContext
    from xgboost.tracker import RabitTracker

    tracker = None
    if hosts.rank == 0:
        tracker = RabitTracker(len(part.working), hosts.leader_address, sortby="task", timeout=_TIMEOUT_S)
        tracker.start()
        hosts.broadcast(json.dumps(tracker.worker_args()).encode())
        arguments = tracker.worker_args()
    else:
        arguments = json.loads(hosts.broadcast())
    if part.takes_part:
        with CommunicatorContext(
            **arguments, dmlc_task_id=f"{hosts.rank:05d}", dmlc_retry=3, dmlc_timeout=_TIMEOUT_S
        ):
            yield
    else:
        yield
    if tracker is not None:
        tracker.wait_for()
