"""MLServer's runtime around the model of a script, as its documentation says of custom runtimes."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from served_model import load


class Script(MLModel):
    """One model in the serving process, like every other server in the benchmark."""

    async def load(self) -> bool:
        """Load the model."""
        self.call, _ = load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Predict the rows of a request, or of those that MLServer gathered into one."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        predicted = self.call(rows).reshape(-1, 1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", predicted)])
