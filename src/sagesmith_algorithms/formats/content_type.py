"""Content types: ``text/csv; label_size=0`` and the short words clients use for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sagesmith_algorithms.errors import RequestError

__all__ = ["CSV", "JSON", "JSON_LINES", "LIBSVM", "PARQUET", "RECORDIO", "ContentType", "accepted"]

CSV = "text/csv"
LIBSVM = "text/libsvm"
PARQUET = "application/x-parquet"
RECORDIO = "application/x-recordio-protobuf"
JSON = "application/json"
JSON_LINES = "application/jsonlines"

_SYNONYMS = {
    "csv": CSV,
    "application/csv": CSV,
    "libsvm": LIBSVM,
    "text/x-libsvm": LIBSVM,
    "application/x-libsvm": LIBSVM,
    "parquet": PARQUET,
    "application/parquet": PARQUET,
    "recordio-protobuf": RECORDIO,
    "application/x-recordio": RECORDIO,
    "json": JSON,
    "jsonlines": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/jsonl": JSON_LINES,
}


@dataclass(frozen=True, slots=True)
class ContentType:
    """A content type in its usual spelling, with its parameters."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> ContentType:
        """Return the content type that *text* means; ``ContentType("")`` if there is none."""
        name, *rest = (part.strip() for part in text.split(";"))
        pairs = (part.partition("=") for part in rest if part)
        lowered = name.lower()
        return cls(
            _SYNONYMS.get(lowered, lowered),
            {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs},
        )


def accepted(accept: str, offered: tuple[str, ...], default: str) -> ContentType:
    """Return what to answer with: the first of the client's *accept* that is among *offered*.

    Raises:
        RequestError: none is (406).
    """
    wanted = [ContentType.parse(part) for part in accept.split(",") if part.strip()]
    if not wanted:
        return ContentType.parse(default)
    ordered = sorted(wanted, key=lambda c: -_quality(c.parameters.get("q", "1")))
    for content_type in ordered:
        if content_type.name in ("*/*", "application/*" if default.startswith("application/") else "text/*"):
            return ContentType(ContentType.parse(default).name, content_type.parameters)
        if content_type.name in offered:
            return content_type
    raise RequestError(f"Accept type {accept} is not supported. Choose one of {', '.join(offered)}.", 406)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
