"""The runtime API: invocations of endpoints."""

from sagesmith.services.sagemaker_runtime._route import Authorize, Exchange, InvokeRoute
from sagesmith.services.sagemaker_runtime._runtime import Runtime
from sagesmith.services.sagemaker_runtime._stream_route import StreamRoute

__all__ = ["Authorize", "Exchange", "InvokeRoute", "Runtime", "StreamRoute"]
