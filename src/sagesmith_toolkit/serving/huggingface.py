"""Hugging Face: the pipeline of a task, from the artifact or, where there is none, from the hub.

A request has ``inputs`` and maybe ``parameters``. The task is what `HF_TASK` says, or follows from the architecture
in the model's config.json.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping

from sagesmith_toolkit.serving import codecs
from sagesmith_toolkit.serving.handlers import Handlers, ModelError

__all__ = ["HuggingFaceHandlers", "task_of"]

_TASKS: Mapping[str, str] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
}


class HuggingFaceHandlers(Handlers):
    """Pipelines of transformers. A fault in them is answered with 400, as Hugging Face's container does."""

    fault_status = 400

    def model_fn(self, model_dir: str) -> Any:
        """Return the pipeline of the model in *model_dir*, or of the hub's model `HF_MODEL_ID`."""
        hub = os.environ.get("HF_MODEL_ID", "")
        local = Path(model_dir, "config.json").is_file()
        if not local and not hub:
            raise ModelError(
                "The artifact has no config.json at its top, and HF_MODEL_ID names no model of the hub. Pack the "
                "folder that save_pretrained wrote, or define model_fn(model_dir)."
            )
        task = os.environ.get("HF_TASK") or (task_of(Path(model_dir)) if local else "")
        if not task:
            raise ModelError(
                "HF_TASK is not set, and the model's architecture does not tell its task: set it, for example to "
                "text-classification."
            )
        pipeline = importlib.import_module("transformers").pipeline
        torch = importlib.import_module("torch")
        source = model_dir if local else hub
        return pipeline(task, model=source, device=0 if torch.cuda.is_available() else -1)

    def input_fn(self, body: Any, content_type: str) -> Any:
        """Return the request as a dictionary: JSON, CSV with a line of names, text, or the bytes of a file."""
        kind = codecs.media_type(content_type)
        if kind.startswith("image/") or kind == "application/x-image":
            return {"inputs": importlib.import_module("PIL.Image").open(io.BytesIO(body))}
        if kind.startswith("audio/") or kind in ("application/octet-stream", "video/mp4"):
            return {"inputs": body}
        text = body if isinstance(body, str) else body.decode("utf-8")
        if kind == codecs.JSON:
            request = json.loads(text)
            if not isinstance(request, dict) or "inputs" not in request:
                raise ValueError('The request must be an object with the key "inputs".')
            return request
        if kind == codecs.CSV:
            return _from_csv(text)
        if kind == "text/plain":
            return {"inputs": text}
        raise codecs.UnsupportedFormatError(
            "Content type %s is not supported by this framework. Please implement input_fn to deserialize the "
            "request data. Supported are %s, %s, text/plain, and images and audio."
            % (content_type, codecs.JSON, codecs.CSV),
            415,
        )

    def predict_fn(self, data: Any, model: Any) -> Any:
        """Return what the pipeline says to the ``inputs`` with the ``parameters``."""
        inputs = data.pop("inputs", data)
        return model(inputs, **(data.pop("parameters", None) or {}))


def task_of(model_dir: Path) -> str:
    """Return the task that the architecture in config.json is made for, "" if it is none of the known ones."""
    config: Dict[str, Any] = json.loads((model_dir / "config.json").read_text("utf-8"))
    for architecture in config.get("architectures") or ():
        for ending, task in _TASKS.items():
            if str(architecture).endswith(ending):
                return task
    return ""


def _from_csv(text: str) -> Dict[str, Any]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not ({"inputs"} <= set(rows[0]) or {"question", "context"} <= set(rows[0])):
        raise ValueError("The first line of CSV must name the columns: inputs, or question and context.")
    if "inputs" in rows[0]:
        return {"inputs": [row["inputs"] for row in rows]}
    return {"inputs": [dict(row) for row in rows]}
