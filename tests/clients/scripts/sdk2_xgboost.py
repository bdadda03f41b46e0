"""SageMaker Python SDK 2: the built-in XGBoost on breast cancer data, as its example notebooks write it."""

import json
import os
import tempfile

import boto3
import numpy as np
import sagemaker
from sagemaker import image_uris
from sagemaker.deserializers import CSVDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.serializers import CSVSerializer
from sagemaker.serverless import ServerlessInferenceConfig
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

session = sagemaker.Session()
region = session.boto_region_name
bucket = session.default_bucket()
prefix = "sdk2-xgboost"
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"

features, labels = load_breast_cancer(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(
    features, labels, test_size=0.25, random_state=42, stratify=labels
)
with tempfile.TemporaryDirectory() as folder:
    for name, x, y in (("train", train_x, train_y), ("validation", test_x, test_y)):
        path = os.path.join(folder, f"{name}.csv")
        np.savetxt(path, np.column_stack([y, x]), delimiter=",", fmt="%.10g")
        boto3.Session().resource("s3").Bucket(bucket).Object(f"{prefix}/{name}/{name}.csv").upload_file(path)

container = image_uris.retrieve("xgboost", region, "1.7-1")
xgb = Estimator(
    container,
    role,
    instance_count=1,
    instance_type="ml.m5.xlarge",
    output_path=f"s3://{bucket}/{prefix}/output",
    sagemaker_session=session,
)
xgb.set_hyperparameters(objective="binary:logistic", num_round=50, max_depth=4, eta=0.2, eval_metric="auc")
xgb.fit(
    {
        "train": TrainingInput(f"s3://{bucket}/{prefix}/train/", content_type="csv"),
        "validation": TrainingInput(f"s3://{bucket}/{prefix}/validation/", content_type="csv"),
    }
)

predictor = xgb.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.xlarge",
    serializer=CSVSerializer(),
    deserializer=CSVDeserializer(),
)
answer = predictor.predict(test_x)
predictor.delete_endpoint()

serverless = xgb.deploy(
    serverless_inference_config=ServerlessInferenceConfig(memory_size_in_mb=2048, max_concurrency=2),
    serializer=CSVSerializer(),
    deserializer=CSVDeserializer(),
)
assert serverless.predict(test_x) == answer
serverless.delete_endpoint()

rows = os.path.join(tempfile.gettempdir(), f"{xgb.latest_training_job.name}.csv")
np.savetxt(rows, np.column_stack([np.arange(len(test_x)), test_x]), delimiter=",", fmt="%.10g")
uploaded = session.upload_data(rows, bucket, f"{prefix}/rows")
os.remove(rows)
transformer = xgb.transformer(
    instance_count=1,
    instance_type="ml.m5.large",
    strategy="MultiRecord",
    assemble_with="Line",
    accept="text/csv",
    output_path=f"s3://{bucket}/{prefix}/transformed",
)
transformer.transform(
    uploaded,
    content_type="text/csv",
    split_type="Line",
    input_filter="$[1:]",
    join_source="Input",
    output_filter="$[0,-1]",
    wait=True,
    logs=True,
)
result = f"{prefix}/transformed/{os.path.basename(uploaded)}.out"
lines = session.read_s3_file(bucket, result).split()
joined = np.array([line.split(",") for line in lines], dtype=float)
assert joined[:, 0].tolist() == list(range(len(test_x))), joined[:5]

scores = np.array(answer, dtype=float).ravel()
np.testing.assert_allclose(joined[:, 1], scores, rtol=1e-5)
assert scores.shape == test_y.shape, scores.shape
accuracy = float(((scores > 0.5) == test_y).mean())
assert accuracy >= 0.96, accuracy
print(json.dumps({"ok": True, "job": xgb.latest_training_job.name, "accuracy": accuracy}))
