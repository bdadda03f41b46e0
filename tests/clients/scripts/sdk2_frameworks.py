"""SageMaker Python SDK 2: one framework's script, and a model of it that was made elsewhere.

Usage: sdk2_frameworks.py FRAMEWORK MODEL, where MODEL is a model.tar.gz.
"""

import json
import os
import sys
import tempfile

import numpy as np
import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.iterators import LineIterator
from sagemaker.mxnet import MXNet, MXNetModel
from sagemaker.pytorch import PyTorch, PyTorchModel
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn import SKLearn, SKLearnModel
from sagemaker.tensorflow import TensorFlow, TensorFlowModel
from sagemaker.xgboost import XGBoost, XGBoostModel

framework, outside = sys.argv[1:]
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
session = sagemaker.Session()
source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "frameworks")
script = os.path.join(source, f"{framework}_script.py")

ESTIMATORS = {
    "sklearn": (SKLearn, {"framework_version": "1.4-2"}, {"fit_intercept": 1}),
    "xgboost": (XGBoost, {"framework_version": "3.0-5"}, {"num_round": 100}),
    "pytorch": (
        PyTorch,
        {
            "framework_version": "2.6.0",
            "py_version": "py312",
            "instance_count": 2,
            "instance_type": "ml.g4dn.xlarge",  # the SDK wants a GPU for torchrun; a server without one runs it on CPUs
            "distribution": {"torch_distributed": {"enabled": True}},
        },
        {"epochs": 200},
    ),
    "tensorflow": (TensorFlow, {"framework_version": "2.12", "py_version": "py310"}, {"epochs": 200}),
    "mxnet": (MXNet, {"framework_version": "1.9.0", "py_version": "py38"}, {"epochs": 60}),
}
MODELS = {
    "sklearn": (SKLearnModel, {"framework_version": "1.4-2", "entry_point": script}),
    "xgboost": (XGBoostModel, {"framework_version": "3.0-5", "entry_point": script}),
    "pytorch": (PyTorchModel, {"framework_version": "2.6.0", "py_version": "py312", "entry_point": script}),
    "tensorflow": (TensorFlowModel, {"framework_version": "2.12"}),
    "mxnet": (MXNetModel, {"framework_version": "1.9.0", "py_version": "py38", "entry_point": script}),
}
SERIALIZERS = (
    {"serializer": CSVSerializer(), "deserializer": CSVDeserializer()} if framework == "xgboost" else {}
)

rng = np.random.default_rng(0)
features = rng.normal(size=(400, 2))
labels = features @ [2.0, -3.0] + 1
rows = np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]], dtype=np.float32)
expected = [0.0, -2.0, 5.0]


def predicted(predictor):
    """Ask *predictor* in its framework's own way."""
    answer = predictor.predict(rows.tolist() if framework == "mxnet" else rows)
    answer = answer["predictions"] if framework == "tensorflow" else answer
    return np.array(answer, dtype=float).ravel()


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.csv")
    np.savetxt(path, np.column_stack([labels, features]), delimiter=",", fmt="%.8g")
    train = session.upload_data(path, key_prefix=f"sdk2-{framework}/data")

estimator_class, options, hyperparameters = ESTIMATORS[framework]
estimator = estimator_class(
    entry_point=script,
    role=role,
    sagemaker_session=session,
    hyperparameters=hyperparameters,
    **{"instance_count": 1, "instance_type": "ml.m5.large", **options},
)
estimator.fit({"train": os.path.dirname(train)})

model_class, options = MODELS[framework]
model_data = session.upload_data(outside, key_prefix=f"sdk2-{framework}/outside")
model = model_class(model_data=model_data, role=role, sagemaker_session=session, **options)
other = model.deploy(initial_instance_count=1, instance_type="ml.m5.large", wait=False, **SERIALIZERS)
predictor = estimator.deploy(initial_instance_count=1, instance_type="ml.m5.large", **SERIALIZERS)
session.wait_for_endpoint(other.endpoint_name)

if framework == "sklearn":
    streaming = sagemaker.Predictor(other.endpoint_name, session, CSVSerializer())
    lines = list(streaming.predict_stream(rows, initial_args={"Accept": "text/csv"}, iterator=LineIterator))
    assert np.allclose(np.array(lines, dtype=float), expected, atol=0.05), lines

found = {"trained": predicted(predictor).tolist(), "outside": predicted(other).tolist()}
for each in (predictor, other):
    each.delete_model()
    each.delete_endpoint()
for name, values in found.items():
    assert np.allclose(values, expected, atol=0.05), (name, values)
print(json.dumps({"ok": True, **found}))
