"""The certificate authority: what clients check, and what is made again when."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sagesmith import authority as module
from sagesmith.authority import Authority
from sagesmith.config import Home


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(Home(tmp_path))


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Return the TLS version that *client* and *server* agree on, *client* believing it speaks to *host*."""
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except (ssl.SSLError, OSError):
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=host) as wrapped:
            return wrapped.version() or ""
    finally:
        here.close()
        thread.join()


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "bucket.s3.localhost", socket.gethostname()]
)
def test_clients_trust_the_server_under_its_names(authority: Authority, host: str) -> None:
    server = authority.server_context()
    bundle = ssl.create_default_context(cafile=str(authority.bundle))
    assert shake_hands(server, bundle, host) == "TLSv1.3"
    assert shake_hands(server, authority.client_context(), host) == "TLSv1.3"


def test_nobody_else_trusts_it_and_it_vouches_for_no_other_name(authority: Authority) -> None:
    server = authority.server_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, ssl.create_default_context(), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, authority.client_context(), "example.org")


def test_a_leaf_is_made_once_for_each_host(authority: Authority) -> None:
    authority.prepare()
    leaf = authority.leaf_context("sts.us-east-1.amazonaws.com")
    assert authority.leaf_context("sts.us-east-1.amazonaws.com") is leaf
    assert shake_hands(leaf, authority.client_context(), "sts.us-east-1.amazonaws.com")
    assert not list(authority.folder.glob(".leaf*"))


def test_private_keys_are_their_owners_alone(authority: Authority) -> None:
    authority.prepare()
    for name in ("ca-key.pem", "server.pem"):
        assert stat.S_IMODE((authority.folder / name).stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in authority.certificate.read_text() + authority.bundle.read_text()


def test_the_bundle_holds_the_worlds_roots_too(authority: Authority) -> None:
    authority.prepare()
    assert authority.bundle.read_text().count("BEGIN CERTIFICATE") > 50
    assert authority.certificate.read_text().strip() in authority.bundle.read_text()


def test_what_is_there_is_kept(authority: Authority) -> None:
    authority.prepare()
    before = {path.name: path.read_bytes() for path in authority.folder.iterdir()}
    Authority(Home(authority.folder.parent)).prepare()
    assert {path.name: path.read_bytes() for path in authority.folder.iterdir()} == before


def test_a_new_name_gets_a_new_server_certificate_under_the_old_root(authority: Authority) -> None:
    authority.prepare()
    root = authority.certificate.read_bytes()
    server = authority.server_context("ml.example.org")
    assert shake_hands(server, authority.client_context(), "ml.example.org")
    assert authority.certificate.read_bytes() == root


def test_a_certificate_near_its_end_is_renewed(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAF_DAYS", 20)
    authority.prepare()
    first = (authority.folder / "server.pem").read_bytes()
    monkeypatch.setattr(module, "LEAF_DAYS", 397)
    authority.prepare()
    assert (authority.folder / "server.pem").read_bytes() != first


def test_the_end_is_read_from_the_certificate(authority: Authority) -> None:
    authority.prepare()
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    der = ssl.PEM_cert_to_DER_cert(authority.certificate.read_text())
    assert module._not_after(der) == certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(
        days=3600
    )


def test_using_what_is_there_does_not_import_cryptography(authority: Authority) -> None:
    authority.prepare()
    code = (
        "import sys; from pathlib import Path; from sagesmith.authority import Authority;"
        "from sagesmith.config import Home;"
        f"Authority(Home(Path({str(authority.folder.parent)!r}))).server_context(); print('cryptography' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
