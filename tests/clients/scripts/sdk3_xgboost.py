"""SageMaker Python SDK 3: the built-in XGBoost with ModelTrainer, and its endpoint through the resources."""

import json
import os
import tempfile
import time

import numpy as np
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, OutputDataConfig, ProductionVariant
from sagemaker.core.transformer import Transformer
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

session = Session()
region = session.boto_region_name
bucket = session.default_bucket()
prefix = "sdk3-xgboost"
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"

features, labels = load_breast_cancer(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(
    features, labels, test_size=0.25, random_state=42, stratify=labels
)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.csv")
    np.savetxt(path, np.column_stack([train_y, train_x]), delimiter=",", fmt="%.10g")
    train_uri = session.upload_data(path, bucket=bucket, key_prefix=f"{prefix}/train")

image = image_uris.retrieve("xgboost", region, "1.7-1")
trainer = ModelTrainer(
    training_image=image,
    role=role,
    base_job_name=prefix,
    sagemaker_session=session,
    compute=Compute(instance_type="ml.m5.xlarge", instance_count=1, volume_size_in_gb=10),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/{prefix}/output"),
    hyperparameters={"objective": "binary:logistic", "num_round": 50, "max_depth": 4, "eta": 0.2},
)
trainer.train(
    input_data_config=[InputData(channel_name="train", data_source=train_uri, content_type="text/csv")],
    wait=True,
)
job = trainer._latest_training_job
job.refresh()
assert job.training_job_status == "Completed", job.training_job_status

name = f"{prefix}-{int(time.time())}"
model = Model.create(
    model_name=name,
    primary_container=ContainerDefinition(image=image, model_data_url=job.model_artifacts.s3_model_artifacts),
    execution_role_arn=role,
)
config = EndpointConfig.create(
    endpoint_config_name=name,
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic",
            model_name=name,
            initial_instance_count=1,
            instance_type="ml.m5.xlarge",
        )
    ],
)
endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
endpoint.wait_for_status("InService")

body = "\n".join(",".join(f"{value:.10g}" for value in row) for row in test_x)
answer = endpoint.invoke(body=body, content_type="text/csv", accept="text/csv")
text = answer.body.read().decode()
endpoint.delete()
config.delete()

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "rows.csv")
    with open(path, "w", encoding="utf-8") as file:
        file.write(body)
    rows_uri = session.upload_data(path, bucket=bucket, key_prefix=f"{prefix}/rows")
transformer = Transformer(
    model_name=name,
    instance_count=1,
    instance_type="ml.m5.large",
    strategy="MultiRecord",
    assemble_with="Line",
    accept="text/csv",
    output_path=f"s3://{bucket}/{prefix}/transformed",
    sagemaker_session=session,
)
transformer.transform(rows_uri, content_type="text/csv", split_type="Line", wait=True, logs=False)
transformed = session.read_s3_file(bucket, f"{prefix}/transformed/rows.csv.out")
assert transformed.split() == text.replace(",", "\n").split(), transformed[:200]
model.delete()

scores = np.array(text.replace("\n", ",").strip(",").split(","), dtype=float)
assert scores.shape == test_y.shape, scores.shape
accuracy = float(((scores > 0.5) == test_y).mean())
assert accuracy >= 0.96, accuracy
print(json.dumps({"ok": True, "job": job.training_job_name, "accuracy": accuracy}))
