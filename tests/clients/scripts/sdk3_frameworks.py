"""SageMaker Python SDK 3: one framework's script with ModelTrainer, deployed. Usage: sdk3_frameworks.py FRAMEWORK."""

import json
import os
import sys
import tempfile
import time

import numpy as np
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, OutputDataConfig, ProductionVariant
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.distributed import Torchrun

framework = sys.argv[1]
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
session = Session()
region, bucket = session.boto_region_name, session.default_bucket()
prefix = f"sdk3-{framework}"
source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "frameworks")
script = f"{framework}_script.py"

VERSIONS = {
    "sklearn": {"version": "1.2-1"},
    "xgboost": {"version": "3.0-5"},
    "pytorch": {"version": "2.6.0", "py_version": "py312"},
    "tensorflow": {"version": "2.12", "py_version": "py310"},
    "mxnet": {"version": "1.9.0", "py_version": "py38"},
}


def image(scope):
    """Return the URI of the framework's image."""
    return image_uris.retrieve(
        framework, region, instance_type="ml.m5.large", image_scope=scope, **VERSIONS[framework]
    )


rng = np.random.default_rng(0)
features = rng.normal(size=(400, 2))
labels = features @ [2.0, -3.0] + 1
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.csv")
    np.savetxt(path, np.column_stack([labels, features]), delimiter=",", fmt="%.8g")
    train = session.upload_data(path, bucket=bucket, key_prefix=f"{prefix}/train")

trainer = ModelTrainer(
    training_image=image("training"),
    source_code=SourceCode(source_dir=source, entry_script=script),
    distributed=Torchrun() if framework == "pytorch" else None,
    role=role,
    base_job_name=prefix,
    sagemaker_session=session,
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/{prefix}/output"),
)
trainer.train(input_data_config=[InputData(channel_name="train", data_source=train)], wait=True)
job = trainer._latest_training_job
job.refresh()
assert job.training_job_status == "Completed", job.failure_reason

name = f"{prefix}-{int(time.time())}"
code = {
    "SAGEMAKER_PROGRAM": script,
    "SAGEMAKER_SUBMIT_DIRECTORY": f"s3://{bucket}/{prefix}/code/sourcedir.tar.gz",
}
with tempfile.TemporaryDirectory() as folder:
    import tarfile

    with tarfile.open(os.path.join(folder, "sourcedir.tar.gz"), "w:gz") as archive:
        archive.add(os.path.join(source, script), script)
    session.upload_data(archive.name, bucket=bucket, key_prefix=f"{prefix}/code")
model = Model.create(
    model_name=name,
    primary_container=ContainerDefinition(
        image=image("inference"),
        model_data_url=job.model_artifacts.s3_model_artifacts,
        environment=code if framework in ("sklearn", "pytorch") else {},
    ),
    execution_role_arn=role,
)
config = EndpointConfig.create(
    endpoint_config_name=name,
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic", model_name=name, initial_instance_count=1, instance_type="ml.m5.large"
        )
    ],
)
endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
endpoint.wait_for_status("InService")

rows = [[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]]
if framework == "xgboost":
    answer = endpoint.invoke(body="1,1\n0,1\n2,0", content_type="text/csv", accept="text/csv")
    found = [float(text) for text in answer.body.read().decode().replace("\n", ",").strip(",").split(",")]
else:
    answer = endpoint.invoke(
        body=json.dumps(rows), content_type="application/json", accept="application/json"
    )
    found = json.loads(answer.body.read())
    found = (
        np.array(found["predictions"] if framework == "tensorflow" else found, dtype=float).ravel().tolist()
    )
endpoint.delete()
config.delete()
model.delete()
assert np.allclose(found, [0.0, -2.0, 5.0], atol=0.05), found
print(json.dumps({"ok": True, "found": found}))
