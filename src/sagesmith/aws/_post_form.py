"""S3's upload by form: what a browser posts with the fields of `generate_presigned_post`.

A ``multipart/form-data`` body carries fields and, at its end, the file. It is another way to write PutObject, and
becomes the headers, the key and the body of one. No service model knows it, which is why it stands here by
itself. Who signed it, and what was signed, is in `_post_policy`.

Source: "POST Object", Amazon S3 API Reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from sagesmith.aws._bodies import BodyPipe
from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._post_policy import SizeRange
from sagesmith.aws._protocols import Answer
from sagesmith.aws._xml import escape, parse_xml
from sagesmith.errors import AwsError

__all__ = ["PostForm", "boundary_of"]

_MAX_FIELDS: Final = 20 * 1024
_PIECE: Final = 256 * 1024
_BOUNDARY: Final = re.compile(
    rb'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.I
)
_PARAMETER: Final = re.compile(rb';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.I)
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_NOT_OF_THE_OBJECT: Final = frozenset(
    {"x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token"}
)
_HEADERS: Final = frozenset(
    {"cache-control", "content-disposition", "content-encoding", "content-type", "expires"}
)


def boundary_of(content_type: bytes) -> bytes | None:
    """Return what separates the parts of a form, None if *content_type* is not a form's."""
    found = _BOUNDARY.match(content_type)
    return (found[1] or found[2]) if found else None


class PostForm:
    """A form on its way in, and after its fields the file, as a `BodyReader`. For the reading thread.

    Args:
        pipe: brings the body.
        boundary: separates its parts.
        bucket: where the form was posted to.

    Raises:
        AwsError: it is not a form with a file at its end, or its fields are too large.
        ConnectionError: the client left before the file.
    """

    def __init__(self, pipe: BodyPipe, boundary: bytes, bucket: str) -> None:
        self._pipe = pipe
        self._mark = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # so that the first mark looks like all others
        self._ended = False
        self._count = 0
        self.allowed: SizeRange = None
        self.size: int | None = None
        self.trailers: Mapping[str, str] = {}
        self.fields = {"bucket": bucket}
        self._until(self._mark)
        while True:
            filename = self._field()
            if filename is not None:
                break
        self.fields["key"] = self.fields.get("key", "").replace("${filename}", filename)
        if not self.fields["key"]:
            raise _argument("key", "", "Bucket POST must contain a field named 'key'. If it is specified, "
                            "please check the order of the fields.")  # fmt: skip

    # The body

    def _more(self) -> None:
        data = self._pipe.take()
        if not data:
            raise AwsError(
                "MalformedPOSTRequest",
                "The body of your POST request is not well-formed multipart/form-data.",
            )
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while (place := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _MAX_FIELDS:
                raise _too_much()
            self._more()
        found, self._buffer = self._buffer[:place], self._buffer[place + len(mark) :]
        self._count += place
        if self._count > _MAX_FIELDS:
            raise _too_much()
        return found

    def _field(self) -> str | None:
        """Read one field; return the file's name if it is the file's turn."""
        if self._until(b"\r\n").startswith(b"--"):
            raise _argument("file", "0", "POST requires exactly one file upload per request.")
        head = b"\r\n" + self._until(b"\r\n\r\n") + b"\r\n"
        start = head.lower().find(b"\r\ncontent-disposition:")
        line = head[start + 2 :].partition(b"\r\n")[0] if start >= 0 else b""
        parameters = {name.lower(): _text(value) for name, value in _PARAMETER.findall(line)}
        name = parameters.get(b"name", "").lower()
        if name == "file":
            self._count = 0
            return re.split(r"[/\\]", parameters.get(b"filename", ""))[-1]
        value = _text(self._until(self._mark))
        if name != "bucket":
            self.fields[name] = value
        return None

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes of the file (all that is left if negative), b"" at its end.

        Raises:
            ConnectionError: the client left before the end.
            AwsError: the form ends before the file does, or the file has not the length that the policy wants.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        data = b""
        while not data and not self._ended:
            place = self._buffer.find(self._mark)
            if place >= 0:
                data, self._ended = self._buffer[:place][:size], place <= size
                self._buffer = self._buffer[len(data) :]
            elif len(self._buffer) >= len(self._mark):
                data = self._buffer[: min(size, len(self._buffer) - len(self._mark) + 1)]
                self._buffer = self._buffer[len(data) :]
            else:
                self._more()
        self._count += len(data)
        if self.allowed is not None:
            least, most = self.allowed
            members = {"ProposedSize": self._count, "MinSizeAllowed": least, "MaxSizeAllowed": most}
            if self._count > most:
                raise AwsError(
                    "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", members=members
                )
            if self._ended and self._count < least:
                raise AwsError(
                    "EntityTooSmall",
                    "Your proposed upload is smaller than the minimum allowed size",
                    members=members,
                )
        if self._ended:
            while self._pipe.take():
                pass  # what stands behind the file means nothing
        return data

    # The object that is put, and the answer

    def headers(self, sent: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the headers of a PutObject: the form's fields, and those *sent* that do not speak of an object.

        Raises:
            AwsError: `MalformedXML`, the field *tagging* is no tag set; `InvalidArgument`, a field cannot be a header.
        """
        of_object = (b"x-amz-", b"content-", b"cache-control", b"expires")
        found = {name: value for name, value in sent.items() if not name.startswith(of_object)}
        for name, value in self.fields.items():
            if name in _HEADERS or (name.startswith("x-amz-") and name not in _NOT_OF_THE_OBJECT):
                if _HEADER_NAME.fullmatch(name) is None:
                    raise _argument(name, value, f"The field {name!r} cannot be a header.")
                found[name.encode()] = value.encode()
        if "acl" in self.fields:
            found[b"x-amz-acl"] = self.fields["acl"].encode()
        if "tagging" in self.fields:
            found[b"x-amz-tagging"] = _tagging(self.fields["tagging"])
        return found

    def answer(self, etag: str, address: str) -> Answer:
        """Return the answer that the form asks for.

        Args:
            etag: the new object's.
            address: what the form was posted to.
        """
        bucket, key = self.fields["bucket"], self.fields["key"]
        location = f"{address}/{quote(key)}"
        redirect = self.fields.get("success_action_redirect") or self.fields.get("redirect", "")
        if redirect.startswith(("http://", "https://")):
            told = urlencode({"bucket": bucket, "key": key, "etag": etag})
            return Answer(303, [("Location", _with_query(redirect, told)), ("ETag", etag)])
        headers = [("Location", location), ("ETag", etag)]
        status = self.fields.get("success_action_status")
        if status != "201":
            return Answer(200 if status == "200" else 204, headers)
        inside = "".join(
            f"<{name}>{escape(text)}</{name}>"
            for name, text in (("Location", location), ("Bucket", bucket), ("Key", key), ("ETag", etag))
        )
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<PostResponse>{inside}</PostResponse>'
        return Answer(201, [*headers, ("Content-Type", "application/xml")], body.encode())


def _tagging(text: str) -> bytes:
    """Return a tag set (XML) as the header that says the same."""
    try:
        sets = parse_xml(text.encode()).children
    except WrongTypeError as error:
        raise AwsError("MalformedXML", f"The field 'tagging' is no tag set: {error}") from error
    pairs = [{child.name: child.text for child in tag.children} for tags in sets for tag in tags.children]
    return urlencode([(pair.get("Key", ""), pair.get("Value", "")) for pair in pairs]).encode()


def _with_query(address: str, more: str) -> str:
    address, mark, fragment = address.partition("#")
    return f"{address}{'&' if '?' in address else '?'}{more}{mark}{fragment}"


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _argument(name: str, value: str, sentence: str) -> AwsError:
    return AwsError("InvalidArgument", sentence, members={"ArgumentName": name, "ArgumentValue": value[:200]})


def _too_much() -> AwsError:
    return AwsError(
        "MaxPostPreDataLengthExceeded",
        f"Your POST request fields preceding the upload file were too large (more than {_MAX_FIELDS} bytes).",
    )
