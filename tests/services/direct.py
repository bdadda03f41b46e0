"""Calling handlers without a wire, held to botocore's models on the way in and out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from sagesmith.aws.call import Call, Caller, marked_operations
from sagesmith.clock import Clock, system_clock

ACCOUNT, REGION = "123456789012", "us-east-1"


@functools.cache
def service_model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


class Direct:
    """Calls the operations of *handlers*; input and output must be what the service's model says."""

    def __init__(self, *handlers: Any, clock: Clock = system_clock, region: str = REGION) -> None:
        self._service: str = handlers[0].service
        self._operations = {mark.name: bound for each in handlers for mark, bound in marked_operations(each)}
        self._clock = clock
        self._region = region

    def __call__(self, operation: str, /, **request: Any) -> Mapping[str, Any]:
        model = service_model(self._service).operation_model(operation)
        _check(request, model.input_shape)
        caller = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/tester", "AIDATESTER", "AKIATESTER")
        call = Call(self._service, operation, self._region, ACCOUNT, caller, "request-1", self._clock())
        answer = self._operations[operation](call, request)
        if model.output_shape is None:
            assert answer is None
            return {}
        result = dict(answer)
        _check(result, model.output_shape)
        return result


def _check(value: Any, shape: Any) -> None:
    if shape is not None:
        report = ParamValidator().validate(value, shape)
        assert not report.has_errors(), report.generate_report()
        assert set(value) <= set(shape.members)
