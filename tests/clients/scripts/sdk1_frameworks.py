"""SageMaker Python SDK 1: one framework's script, trained and deployed, on Python 3.8. Usage: sdk1_frameworks.py FRAMEWORK."""

import json
import os
import sys
import tempfile

import numpy as np
import sagemaker
from sagemaker.mxnet import MXNet
from sagemaker.pytorch import PyTorch
from sagemaker.tensorflow import TensorFlow
from sagemaker.xgboost import XGBoost

framework = sys.argv[1]
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
session = sagemaker.Session()
script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "frameworks", framework + "_script.py")

ESTIMATORS = {
    "xgboost": (XGBoost, {"framework_version": "1.0-1"}, {"num_round": 100}),
    "pytorch": (PyTorch, {"framework_version": "1.5.0", "py_version": "py3"}, {"epochs": 200}),
    "tensorflow": (
        TensorFlow,
        {"framework_version": "2.1.0", "py_version": "py3", "script_mode": True},
        {"epochs": 200},
    ),
    "mxnet": (MXNet, {"framework_version": "1.6.0", "py_version": "py3"}, {"epochs": 60}),
}

rng = np.random.RandomState(0)
features = rng.normal(size=(400, 2))
labels = features.dot([2.0, -3.0]) + 1
rows = np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]], dtype=np.float32)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.csv")
    np.savetxt(path, np.column_stack([labels, features]), delimiter=",", fmt="%.8g")
    train = session.upload_data(path, key_prefix="sdk1-" + framework + "/data")

estimator_class, options, hyperparameters = ESTIMATORS[framework]
estimator = estimator_class(
    entry_point=script,
    role=role,
    sagemaker_session=session,
    train_instance_count=1,
    train_instance_type="ml.m5.large",
    hyperparameters=hyperparameters,
    **options,
)
estimator.fit({"train": os.path.dirname(train)})
predictor = estimator.deploy(initial_instance_count=1, instance_type="ml.m5.large")
answer = predictor.predict(rows.tolist() if framework in ("tensorflow", "mxnet") else rows)
answer = answer["predictions"] if framework == "tensorflow" else answer
found = np.array(answer, dtype=float).ravel()
estimator.delete_endpoint()
assert np.allclose(found, [0.0, -2.0, 5.0], atol=0.05), found
print(json.dumps({"ok": True, "found": found.tolist()}))
