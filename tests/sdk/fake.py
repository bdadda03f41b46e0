"""A session whose S3 is a dictionary, for tests of what is uploaded."""

from __future__ import annotations

import io
from typing import Any

from botocore.response import StreamingBody

from sagesmith.sdk import NotFound, Session

__all__ = ["FakeSession"]


class FakeSession(Session):
    """Keeps objects in `objects`, by URI."""

    def __init__(self) -> None:
        super().__init__(endpoint_url="https://127.0.0.1:1", region="us-east-1", bucket="bucket")
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.aborted: list[str] = []

    def call(self, service: str, operation: str, /, **request: Any) -> dict[str, Any]:
        assert service == "s3", (service, operation)
        uri = f"s3://{request['Bucket']}/{request.get('Key', '')}"
        if operation == "put_object":
            self.objects[uri] = bytes(request["Body"])
        elif operation == "create_multipart_upload":
            self.parts[uri] = {}
            return {"UploadId": uri}
        elif operation == "upload_part":
            self.parts[uri][request["PartNumber"]] = bytes(request["Body"])
            return {"ETag": f"etag-{request['PartNumber']}"}
        elif operation == "complete_multipart_upload":
            numbers = [part["PartNumber"] for part in request["MultipartUpload"]["Parts"]]
            assert numbers == sorted(self.parts[uri])
            parts = self.parts.pop(uri)
            self.objects[uri] = b"".join(parts[number] for number in numbers)
        elif operation == "abort_multipart_upload":
            self.aborted.append(uri)
        elif operation == "get_object":
            if uri not in self.objects:
                raise NotFound(uri)
            body = self.objects[uri]
            return {"Body": StreamingBody(io.BytesIO(body), len(body))}
        else:
            raise AssertionError(operation)
        return {}
