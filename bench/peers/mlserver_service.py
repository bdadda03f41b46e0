"""MLServer's runtime around the model of a script, as its documentation says of custom runtimes."""

import runpy

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Script(MLModel):
    """One model in the serving process, like every other server in the benchmark."""

    async def load(self) -> bool:
        """Load the model."""
        script = runpy.run_path(self.settings.parameters.uri)
        model = script["model_fn"]("")
        self.call = lambda rows: script["predict_fn"](rows, model)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Predict the rows of a request, or of those that MLServer gathered into one."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        predicted = self.call(rows).reshape(-1, 1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", predicted)])
