"""SageMaker Python SDK 2: an inference pipeline of scikit-learn and XGBoost, as its documentation writes it."""

import io
import json
import os
import tarfile
import tempfile

import numpy as np
import sagemaker
from sagemaker.pipeline import PipelineModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn import SKLearnModel

SCRIPT = """
import numpy as np


def model_fn(model_dir):
    return np.array([1.0, -1.0])


def predict_fn(data, signs):
    return np.atleast_2d(data) * signs
"""

session = sagemaker.Session()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
rng = np.random.default_rng(0)
features = rng.normal(size=(400, 2))
labels = (features[:, 0] > features[:, 1]).astype(float)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.csv")
    # What the first container makes of the features is what the second one is trained on.
    np.savetxt(path, np.column_stack([labels, features * [1.0, -1.0]]), delimiter=",")
    train = session.upload_data(path, key_prefix="sdk2-pipeline/data")
    estimator = sagemaker.estimator.Estimator(
        sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1"),
        role,
        instance_count=1,
        instance_type="ml.m5.large",
        sagemaker_session=session,
        hyperparameters={"objective": "binary:logistic", "num_round": 20, "max_depth": 3},
    )
    estimator.fit({"train": sagemaker.inputs.TrainingInput(os.path.dirname(train), content_type="text/csv")})

    script = os.path.join(folder, "preprocess.py")
    with open(script, "w") as file:
        file.write(SCRIPT)
    empty = os.path.join(folder, "model.tar.gz")
    with tarfile.open(empty, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("nothing"), io.BytesIO())
    preprocessor = SKLearnModel(
        model_data=session.upload_data(empty, key_prefix="sdk2-pipeline/model"),
        role=role,
        entry_point=script,
        framework_version="1.4-2",
        env={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"},
        sagemaker_session=session,
    )
    pipeline = PipelineModel(
        models=[preprocessor, estimator.create_model()],
        role=role,
        name="sdk2-pipeline",
        predictor_cls=lambda name, session: Predictor(name, session, serializer=CSVSerializer()),
        sagemaker_session=session,
    )
    predictor = pipeline.deploy(initial_instance_count=1, instance_type="ml.c5.large")

answer = predictor.predict(features[:100])
predictions = np.array([float(part) for part in answer.decode().replace("\n", ",").split(",") if part])
predictor.delete_endpoint()
pipeline.delete_model()
accuracy = float(((predictions > 0.5) == labels[:100]).mean())
assert accuracy >= 0.95, accuracy
print(json.dumps({"ok": True, "accuracy": accuracy}))
