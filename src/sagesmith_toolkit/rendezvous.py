"""How the hosts of one training job meet: everyone sends bytes to the first host, which sends bytes to everyone.

The first host listens; the others connect, retrying until it is there. The connections stay, so that a host
that dies is noticed at once by whoever waits for it. Several jobs can share one machine's network, so the port
is one of a short series that the job's name decides, and a greeting that holds the job's name tells its own
first host from another's. A message is its length in eight bytes, then the bytes.

A host's address is what the environment variable `SAGESMITH_HOSTS` says, JSON of names and addresses, or what the
name resolves to: without a container of its own, a process has no /etc/hosts of its own either.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import time
from typing import List, Sequence

__all__ = ["HostLostError", "Rendezvous", "RendezvousError", "address_of"]

_LENGTH = struct.Struct("<Q")
_COPIED = 64 * 1024
_GREETING = struct.Struct("<32sI")
_PORTS = 16
_MAX_MESSAGE = 1 << 36


class RendezvousError(RuntimeError):
    """The hosts did not meet in time."""


class HostLostError(RendezvousError):
    """A host ended, or its machine went away, before its message was complete."""


def address_of(host: str) -> str:
    """Return the IP address of *host*, one of the job's.

    Raises:
        OSError: nothing says what it is.
    """
    try:
        known = json.loads(os.environ.get("SAGESMITH_HOSTS") or "{}")
    except ValueError:
        known = {}
    found = known.get(host) if isinstance(known, dict) else None
    return str(found) if found else socket.gethostbyname(host)


class Rendezvous:
    """The meeting of *hosts*, seen from *current_host*. Not thread-safe.

    Args:
        hosts: all hosts, in the same order everywhere; the first one leads.
        current_host: this host.
        job: the same text on all hosts of this job, and on no others.
        timeout_s: how long to wait for the others to come.

    Raises:
        RendezvousError: not all hosts came within *timeout_s*.
    """

    def __init__(self, hosts: Sequence[str], current_host: str, job: str, timeout_s: float = 300.0) -> None:
        self.hosts = tuple(hosts)
        self.rank = self.hosts.index(current_host)
        self._key = _key(self.hosts, job)
        self._ports = self.ports(self.hosts, job)
        self._peers: dict[int, socket.socket] = {}
        deadline = time.monotonic() + timeout_s
        try:
            if self.rank == 0:
                self._listen(deadline)
            else:
                self._peers[0] = self._connect(deadline)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def ports(hosts: Sequence[str], job: str) -> Sequence[int]:
        """Return the ports that the first host of *job* tries, in this order."""
        first = 21000 + struct.unpack_from("<H", _key(hosts, job))[0] % 9000
        return range(first, first + _PORTS)

    @property
    def leader_address(self) -> str:
        """The first host's IP address, as this host sees it."""
        return address_of(self.hosts[0])

    def gather(self, message: bytes) -> List[bytes]:
        """Send *message* to the first host; there, return everyone's in the order of the hosts, elsewhere [].

        Raises:
            HostLostError: a host went away.
        """
        if self.rank == 0:
            return [message, *(self._receive(rank) for rank in range(1, len(self.hosts)))]
        self._send(0, message)
        return []

    def broadcast(self, message: bytes = b"") -> bytes:
        """Return the first host's *message* on every host.

        Raises:
            HostLostError: a host went away.
        """
        if self.rank == 0:
            for rank in range(1, len(self.hosts)):
                self._send(rank, message)
            return message
        return self._receive(0)

    def exchange(self, message: bytes) -> List[bytes]:
        """Return everyone's messages, in the order of the hosts, on every host."""
        gathered = self.gather(message)
        packed = self.broadcast(b"".join(_LENGTH.pack(len(m)) + m for m in gathered))
        messages, position = [], 0
        while position < len(packed):
            (length,) = _LENGTH.unpack_from(packed, position)
            position += _LENGTH.size
            messages.append(packed[position : position + length])
            position += length
        return messages

    def close(self) -> None:
        """End the connections."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()

    def _listen(self, deadline: float) -> None:
        with self._bind() as listener:
            while len(self._peers) < len(self.hosts) - 1:
                missing = [h for r, h in enumerate(self.hosts) if r and r not in self._peers]
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RendezvousError(
                        "%s did not come to %s in time" % (", ".join(missing), self.hosts[0])
                    )
                listener.settimeout(left)
                try:
                    peer, _ = listener.accept()
                except socket.timeout:
                    continue
                self._greet(peer)

    def _bind(self) -> socket.socket:
        address = address_of(self.hosts[0])
        for port in self._ports:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except OSError:
                listener.close()
                continue
            listener.listen(len(self.hosts))
            return listener
        raise RendezvousError(
            "%s cannot listen on any of the ports %d to %d of %s"
            % (self.hosts[0], self._ports[0], self._ports[-1], address)
        )

    def _greet(self, peer: socket.socket) -> None:
        """Keep *peer* if it is a host of this job, and say so to it."""
        peer.settimeout(5.0)
        try:
            key, rank = _GREETING.unpack(_read_exactly(peer, _GREETING.size))
            if key == self._key and 0 < rank < len(self.hosts) and rank not in self._peers:
                peer.sendall(self._key)
                self._peers[rank] = _kept_alive(peer)
                return
        except (OSError, EOFError):
            pass
        peer.close()

    def _connect(self, deadline: float) -> socket.socket:
        why = ""
        while time.monotonic() < deadline:
            for port in self._ports:
                try:
                    address = address_of(self.hosts[0])
                    peer = socket.create_connection((address, port), timeout=5.0)
                except OSError as error:
                    why = str(error)
                    continue
                try:
                    peer.sendall(_GREETING.pack(self._key, self.rank))
                    if _read_exactly(peer, len(self._key)) == self._key:
                        return _kept_alive(peer)
                except (OSError, EOFError):  # another job's first host, which hangs up
                    why = "another job answers on port %d" % port
                peer.close()
            time.sleep(0.05)
        raise RendezvousError("%s did not find %s in time: %s" % (self.hosts[self.rank], self.hosts[0], why))

    def _send(self, rank: int, message: bytes) -> None:
        try:
            if len(message) < _COPIED:  # in one packet, of which the other host hears once
                self._peers[rank].sendall(_LENGTH.pack(len(message)) + message)
            else:
                self._peers[rank].sendall(_LENGTH.pack(len(message)))
                self._peers[rank].sendall(message)
        except OSError as error:
            raise HostLostError("%s went away: %s" % (self.hosts[rank], error)) from error

    def _receive(self, rank: int) -> bytes:
        try:
            (length,) = _LENGTH.unpack(_read_exactly(self._peers[rank], _LENGTH.size))
            if length > _MAX_MESSAGE:
                raise HostLostError("%s sent a message of an impossible length" % self.hosts[rank])
            return _read_exactly(self._peers[rank], length)
        except (OSError, EOFError) as error:
            raise HostLostError("%s went away before it had sent its part" % self.hosts[rank]) from error


def _key(hosts: Sequence[str], job: str) -> bytes:
    return hashlib.sha256("\0".join((job, *hosts)).encode()).digest()


def _read_exactly(peer: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size:
        count = peer.recv_into(view[done:])
        if not count:
            raise EOFError("the connection ended")
        done += count
    return bytes(buffer)


def _kept_alive(peer: socket.socket) -> socket.socket:
    """Wait for *peer* as long as it lives, and notice within a minute if its machine is gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return peer
