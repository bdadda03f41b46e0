"""The local certificate authority: made at first start, it vouches for this server and nobody else.

Everything is P-256. Private keys are readable by their owner alone. ``bundle.pem`` holds certifi's roots, the
system's where there are some, and ours, so that a client pointed at it still trusts the rest of the world.
Files that are there and not near their end are used as they are; `cryptography` is imported only to make one.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

from sagesmith.config import Home

__all__ = ["Authority"]

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 397
"""Some clients refuse server certificates that live longer."""

RENEW_DAYS: Final = 30
SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LEAVES_KEPT: Final = 500
_ANY_ADDRESS: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104 - compared with, not bound to


class Authority:
    """The authority of a home. Thread-safe, and safe against another process that starts at the same time."""

    def __init__(self, home: Home) -> None:
        self.folder = home.authority
        self._lock = threading.Lock()
        self._leaves: dict[str, ssl.SSLContext] = {}

    @property
    def certificate(self) -> Path:
        """Our root certificate."""
        return self.folder / "ca.pem"

    @property
    def bundle(self) -> Path:
        """Every root that a client of this server should trust, ours included."""
        return self.folder / "bundle.pem"

    @property
    def _key(self) -> Path:
        return self.folder / "ca-key.pem"

    @property
    def _server(self) -> Path:
        return self.folder / "server.pem"

    @property
    def _server_names(self) -> Path:
        return self.folder / "server.names"

    def prepare(self, *extra_names: str) -> None:
        """Make what is missing or near its end: root, bundle, and the server's certificate.

        Args:
            extra_names: further host names or addresses that the server answers to.
        """
        names = server_names(extra_names)
        if self._is_ready(names):
            return
        with self._exclusively():
            if not self.certificate.exists() or _days_left(self.certificate) < RENEW_DAYS:
                self._make_root()
            if not self.bundle.exists() or self.bundle.stat().st_mtime < self.certificate.stat().st_mtime:
                _write(self.bundle, _bundle(self.certificate.read_text()), 0o644)
            if not self._serves(names):
                _write(self._server, self._issue(names), 0o600)
                _write(self._server_names, "\n".join(names), 0o644)

    def server_context(self, *extra_names: str) -> ssl.SSLContext:
        """Return the TLS settings of the server, with its certificate. Makes what is missing."""
        self.prepare(*extra_names)
        return _server_context(self._server)

    def leaf_context(self, host: str) -> ssl.SSLContext:
        """Return TLS settings to answer as *host*, with a certificate made for it. Kept in memory per host."""
        with self._lock:
            context = self._leaves.get(host)
            if context is None:
                if len(self._leaves) >= _LEAVES_KEPT:
                    self._leaves.clear()
                path = self.folder / f".leaf-{os.getpid()}-{threading.get_ident()}.pem"
                try:
                    _write(path, self._issue((host,)), 0o600)
                    context = self._leaves[host] = _server_context(path)
                finally:
                    path.unlink(missing_ok=True)
            return context

    def answer_as(self, context: ssl.SSLContext, wanted: Callable[[str], bool]) -> None:
        """Let a server with *context* answer under other names too, those that are *wanted*: as `leaf_context` would."""

        def choose(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            if name is not None and wanted(name):
                connection.context = self.leaf_context(name.lower())

        context.sni_callback = choose

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS settings of a client that trusts our authority alone."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def _is_ready(self, names: Sequence[str]) -> bool:
        return (
            self.bundle.exists()
            and self.certificate.exists()
            and self.bundle.stat().st_mtime >= self.certificate.stat().st_mtime
            and self._serves(names)
        )

    def _serves(self, names: Sequence[str]) -> bool:
        """Whether the server's certificate is there, ours, for *names*, and not near its end."""
        return (
            self._server.exists()
            and self._server_names.exists()
            and self._server.stat().st_mtime >= self.certificate.stat().st_mtime
            and set(names) <= set(self._server_names.read_text().splitlines())
            and _days_left(self._server) >= RENEW_DAYS
        )

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock, (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_root(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        # Each root has a name of its own: two with the same name but other keys would be confused by clients.
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sagesmith"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"Sagesmith local authority {os.urandom(4).hex()}"),
            ]
        )
        certificate = (
            _builder(name, name, key, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._key, _key_pem(key), 0o600)
        _write(self.certificate, _certificate_pem(certificate), 0o644)

    def _issue(self, names: Sequence[str]) -> str:
        """Return key and certificate, with ours behind it, for a server of those names, as PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        root = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        root_key = load_pem_private_key(self._key.read_bytes(), password=None)
        if not isinstance(root_key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{self._key} is not a P-256 key; remove {self.folder} to have it made anew.")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        certificate = (
            _builder(subject, root.subject, key, LEAF_DAYS)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
            )
            .sign(root_key, hashes.SHA256())
        )
        return _key_pem(key) + _certificate_pem(certificate) + self.certificate.read_text()


def server_names(extra_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names the server's certificate is for: this machine's, the loopback's, and *extra_names*."""
    names = ["localhost", "*.localhost", "*.s3.localhost", "127.0.0.1", "::1", socket.gethostname()]
    wanted = (name for name in (*names, *extra_names) if name and name.isascii() and name not in _ANY_ADDRESS)
    return tuple(dict.fromkeys(wanted))


def _server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _days_left(path: Path) -> float:
    """Return how many days the first certificate in *path* is still valid; 0 if it cannot be read."""
    match = _PEM.search(path.read_text())
    if match is None:
        return 0
    end = _not_after(ssl.PEM_cert_to_DER_cert(match[0]))
    return (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400


def _not_after(der: bytes) -> datetime.datetime:
    """Return when the certificate *der* ends: the second of the two times that X.509 puts side by side.

    By hand, since importing `cryptography` to read one date costs a tenth of a server's start.
    """
    times = re.findall(rb"\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z", der)
    short, long = times[1]
    text = (long or b"20" + short).decode()
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=datetime.UTC)


def _bundle(own: str) -> str:
    import certifi

    texts = [Path(certifi.where()).read_text()]
    texts += [Path(path).read_text() for path in SYSTEM_BUNDLES if Path(path).is_file()][:1]
    roots = dict.fromkeys(match[0] for text in texts for match in _PEM.finditer(text))
    return "\n".join((own.strip(), *roots)) + "\n"


def _write(path: Path, text: str, mode: int) -> None:
    """Write *text* aside and rename it, so that nobody reads half a file or one of looser mode."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.chmod(mode)
    aside.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _certificate_pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()
