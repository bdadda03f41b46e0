"""SageMaker Python SDK 2: a model as an inference component, deployed, invoked and deleted as its documentation writes it."""

import json
import os
import tempfile

import numpy as np
import sagemaker
from sagemaker.compute_resource_requirements.resource_requirements import ResourceRequirements
from sagemaker.enums import EndpointType
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

session = sagemaker.Session()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
rng = np.random.default_rng(0)
features = rng.normal(size=(300, 2))
labels = (features[:, 0] > 0).astype(float)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.csv")
    np.savetxt(path, np.column_stack([labels, features]), delimiter=",")
    train = session.upload_data(path, key_prefix="sdk2-components/data")

estimator = sagemaker.estimator.Estimator(
    sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1"),
    role,
    instance_count=1,
    instance_type="ml.m5.large",
    sagemaker_session=session,
    hyperparameters={"objective": "binary:logistic", "num_round": 10},
)
estimator.fit({"train": sagemaker.inputs.TrainingInput(os.path.dirname(train), content_type="text/csv")})

model = estimator.create_model(predictor_cls=Predictor)
predictor = model.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.xlarge",
    endpoint_name="sdk2-components",
    endpoint_type=EndpointType.INFERENCE_COMPONENT_BASED,
    inference_component_name="sdk2-component",
    resources=ResourceRequirements(
        requests={"num_cpus": 1, "memory": 1024, "copies": 2}, limits={"memory": 4096}
    ),
    managed_instance_scaling={"MinInstanceCount": 1, "MaxInstanceCount": 2},
    serializer=CSVSerializer(),
)
answer = predictor.predict(features[:100])
predictions = np.array([float(part) for part in answer.decode().replace("\n", ",").split(",") if part])
accuracy = float(((predictions > 0.5) == labels[:100]).mean())
found = session.list_inference_components(endpoint_name_equals="sdk2-components")["InferenceComponents"]
assert [component["InferenceComponentName"] for component in found] == ["sdk2-component"], found
predictor.delete_predictor(wait=True)
session.delete_endpoint("sdk2-components")
model.delete_model()
assert accuracy >= 0.95, accuracy
print(json.dumps({"ok": True, "accuracy": accuracy}))
