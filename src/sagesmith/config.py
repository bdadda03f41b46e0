"""The home folder and the settings: everything about one server that outlives its process.

`Home` names the places in the folder, `Settings` holds what a user may choose. Settings come from
``config.toml`` in the home folder, then from ``SAGESMITH_<NAME>`` in the environment, then from the
command line; the later wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

__all__ = ["Home", "Settings", "SettingsError"]


class SettingsError(ValueError):
    """A setting has a name or a value that makes no sense; the sentence says which and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """The places in a home folder. Creating them is the business of whoever owns each."""

    path: Path

    @classmethod
    def locate(cls, given: Path | None = None) -> Home:
        """Return the home folder: *given*, else ``$SAGESMITH_HOME``, else ``~/.sagesmith``."""
        chosen = given or Path(os.environ.get("SAGESMITH_HOME") or Path.home() / ".sagesmith")
        return cls(chosen.expanduser().absolute())

    @property
    def config(self) -> Path:
        """``config.toml``: the user's settings."""
        return self.path / "config.toml"

    @property
    def database(self) -> Path:
        """The SQLite database of a server without `database_url`."""
        return self.path / "sagesmith.db"

    @property
    def objects(self) -> Path:
        """The files of the embedded S3."""
        return self.path / "objects"

    @property
    def instances(self) -> Path:
        """One folder for each running instance: its /opt/ml, its socket, its agent's journal."""
        return self.path / "instances"

    @property
    def notebooks(self) -> Path:
        """The volumes of notebook instances: one folder for each, which stays while it is stopped."""
        return self.path / "notebooks"

    @property
    def images(self) -> Path:
        """Framework environments, built on first use."""
        return self.path / "images"

    @property
    def authority(self) -> Path:
        """The certificate authority: ``ca.pem``, ``ca-key.pem``, ``bundle.pem``, server certificates."""
        return self.path / "authority"

    @property
    def credentials(self) -> Path:
        """The administrator's key as JSON, readable by its owner alone."""
        return self.path / "credentials.json"

    @property
    def runtime(self) -> Path:
        """``run/server.json`` (address and pid of the running server), lock files and sockets."""
        return self.path / "run"

    @property
    def server_file(self) -> Path:
        """What a client of the running server must know, as JSON: url, http_url, pid, region, account_id."""
        return self.runtime / "server.json"

    @property
    def logs(self) -> Path:
        """The server's own logs."""
        return self.path / "logs"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose, with its defaults. `docs/settings.md` explains each; a test keeps it complete."""

    account_id: str = "123456789012"
    region: str = "us-east-1"
    host: str = "127.0.0.1"
    port: int = 8777
    http_port: int = 0
    database_url: str = ""
    strict_iam: bool = False
    warm_instances: int = 2
    sandbox: str = "auto"
    default_role: str = "SagesmithExecutionRole"
    max_skew_s: int = 900
    metrics_every_s: int = 10
    invocation_timeout_s: int = 60
    scaling_period_s: int = 60
    serverless_idle_s: int = 300
    log_level: str = "INFO"
    images_folder: str = ""
    torch_backend: str = "auto"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d{12}", self.account_id):
            raise SettingsError(f"account_id must be 12 digits, not {self.account_id!r}.")
        for name in ("port", "http_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise SettingsError(f"{name} must be between 0 and 65535, not {getattr(self, name)}.")
        if self.sandbox not in ("auto", "bubblewrap", "none"):
            raise SettingsError(f"sandbox must be auto, bubblewrap or none, not {self.sandbox!r}.")
        if not re.fullmatch(r"[a-z0-9.]*", self.torch_backend):
            raise SettingsError(
                f"torch_backend must be auto, cpu, cu128 and the like, or empty, not {self.torch_backend!r}."
            )
        if self.warm_instances < 0:
            raise SettingsError(f"warm_instances must not be negative, but is {self.warm_instances}.")
        if not 1 <= self.metrics_every_s <= 60:
            raise SettingsError(f"metrics_every_s must be between 1 and 60, not {self.metrics_every_s}.")
        if not 1 <= self.invocation_timeout_s <= 3600:
            raise SettingsError(
                f"invocation_timeout_s must be between 1 and 3600, not {self.invocation_timeout_s}."
            )
        if self.serverless_idle_s < 1:
            raise SettingsError(f"serverless_idle_s must be at least 1, not {self.serverless_idle_s}.")
        if self.scaling_period_s not in (1, 5, 10, 20, 30, 60):
            raise SettingsError(
                f"scaling_period_s must be 1, 5, 10, 20, 30 or 60, not {self.scaling_period_s}."
            )

    def images(self, home: Home) -> Path:
        """Return the folder of the framework environments: the home's own, or one that several share."""
        return Path(self.images_folder).expanduser().absolute() if self.images_folder else home.images

    @classmethod
    def load(cls, home: Home, environ: Mapping[str, str], **given: Any) -> Settings:
        """Return the settings of *home*, overridden by *environ* and then by what is *given* (not None).

        Raises:
            SettingsError: a name or a value is wrong.
        """
        values: dict[str, Any] = {}
        if home.config.is_file():
            import tomllib  # no server without a file needs it

            try:
                values.update(tomllib.loads(home.config.read_text("utf-8")))
            except tomllib.TOMLDecodeError as error:
                raise SettingsError(f"{home.config} is not valid TOML: {error}.") from error
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise SettingsError(
                f"{home.config} has unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}."
            )
        for name in known:
            text = environ.get(f"SAGESMITH_{name.upper()}")
            if text is not None:
                values[name] = text
        values.update({name: value for name, value in given.items() if value is not None})
        return replace(cls(), **{name: _coerce(name, cls, value) for name, value in values.items()})


def _coerce(name: str, settings: type[Settings], value: Any) -> Any:
    wanted = type(getattr(settings(), name))
    if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    if wanted is bool and str(value).lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        return str(value).lower() in ("1", "true", "yes", "on")
    if wanted is int and re.fullmatch(r"\d+", str(value)):
        return int(value)
    raise SettingsError(f"{name} must be of type {wanted.__name__}, not {value!r}.")
