from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sagesmith_toolkit.rendezvous import HostLostError, Rendezvous, RendezvousError, address_of

HOSTS = ("127.0.1.1", "127.0.1.2", "127.0.1.3")


def together(
    work: Callable[[Rendezvous], object], job: str = "job", hosts: tuple[str, ...] = HOSTS
) -> list[object]:
    """Run *work* on all hosts, each in a thread."""

    def run(host: str) -> object:
        with Rendezvous(hosts, host, job, timeout_s=20) as meeting:
            return work(meeting)

    with ThreadPoolExecutor(len(hosts)) as threads:
        return list(threads.map(run, hosts))


def test_everyone_gets_everyones_message_in_order() -> None:
    big = bytes(range(256)) * 20000
    results = together(lambda m: m.exchange(big + bytes([m.rank])))
    assert results == [[big + bytes([rank]) for rank in range(3)]] * 3


def test_several_jobs_on_one_machine() -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(
            threads.map(lambda job: together(lambda m: m.exchange(job.encode()), job), ["a", "b", "c", "d"])
        )
    assert results == [[[job] * 3] * 3 for job in (b"a", b"b", b"c", b"d")]


def test_hosts_whose_names_only_the_platform_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGESMITH_HOSTS", json.dumps({"algo-1": "127.3.4.1", "algo-2": "127.3.4.2"}))
    results = together(lambda m: m.exchange(m.leader_address.encode()), hosts=("algo-1", "algo-2"))
    assert results == [[b"127.3.4.1"] * 2] * 2
    assert address_of("localhost") == "127.0.0.1"


def test_a_host_that_goes_away_is_named() -> None:
    def work(meeting: Rendezvous) -> object:
        if meeting.rank == 2:
            return None
        with pytest.raises(
            HostLostError, match="127.0.1.3 went away" if meeting.rank == 0 else "127.0.1.1 went away"
        ):
            meeting.exchange(b"")
        return None

    together(work)


def test_a_host_that_does_not_come_is_named() -> None:
    with pytest.raises(RendezvousError, match=r"127\.0\.1\.2, 127\.0\.1\.3 did not come"):
        Rendezvous(HOSTS, HOSTS[0], "alone", timeout_s=0.1)
    with pytest.raises(RendezvousError, match=r"127\.0\.1\.2 did not find 127\.0\.1\.1 in time"):
        Rendezvous(HOSTS, HOSTS[1], "alone", timeout_s=0.1)


def test_strangers_do_no_harm() -> None:
    ended = threading.Event()

    def disturb() -> None:
        ports = Rendezvous.ports(HOSTS, "disturbed")
        while not ended.is_set():
            for port in ports[:2]:
                # The host may hang up while the stranger still talks.
                with contextlib.suppress(OSError), socket.socket() as stranger:
                    stranger.settimeout(1)
                    if not stranger.connect_ex((HOSTS[0], port)):
                        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 4)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert together(lambda m: m.exchange(b"x"), "disturbed") == [[b"x"] * 3] * 3
    finally:
        ended.set()
        thread.join()
