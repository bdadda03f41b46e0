"""A container of your own through the SageMaker SDK 2: build, push, train, deploy, predict, clean up.

Run it with the SDK's own environment: sagesmith run -- python examples/own-container/run.py
"""

import base64
import json
import os
import subprocess
from pathlib import Path

import boto3
import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.estimator import Estimator
from sagemaker.model import Model
from sagemaker.serializers import CSVSerializer

HERE = Path(__file__).parent


def docker(*arguments, **options):
    subprocess.run(["docker", *arguments], check=True, **options)


# A repository, and the image in it. The API says where the registry is, and with which password to enter.
ecr = boto3.client("ecr")
repository = ecr.create_repository(repositoryName="line")["repository"]
access = ecr.get_authorization_token()["authorizationData"][0]
user, password = base64.b64decode(access["authorizationToken"]).decode().split(":")
docker("login", "--username", user, "--password-stdin", access["proxyEndpoint"], input=password.encode())
image = f"{repository['repositoryUri']}:1"
build_arguments = ["--build-arg", f"BASE={os.environ['BASE']}"] if "BASE" in os.environ else []
docker("build", *build_arguments, "--tag", image, str(HERE))
docker("push", image)

# Train, deploy, predict.
session = sagemaker.Session()
session.upload_string_as_file_body("1,3\n2,5\n3,7\n", session.default_bucket(), "line/train/points.csv")
role = "arn:aws:iam::123456789012:role/SageMakerRole"
estimator = Estimator(
    image_uri=image,
    role=role,
    instance_count=1,
    instance_type="ml.m5.large",
    hyperparameters={"ridge": 0},
    metric_definitions=[{"Name": "train:mse", "Regex": r"train mse=(\S+);"}],
)
estimator.fit({"train": f"s3://{session.default_bucket()}/line/train/"})
predictor = estimator.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    serializer=CSVSerializer(),
    deserializer=CSVDeserializer(),
)
first = predictor.predict([[4], [5]])
predictor.delete_model()
predictor.delete_endpoint()

# The same model from its artifact, with the address that the image would have on AWS.
elsewhere = Model(
    image_uri=f"{repository['registryId']}.dkr.ecr.{session.boto_region_name}.amazonaws.com/line:1",
    model_data=estimator.model_data,
    role=role,
    predictor_cls=sagemaker.Predictor,
)
predictor = elsewhere.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    serializer=CSVSerializer(),
    deserializer=CSVDeserializer(),
)
second = predictor.predict([[4], [5]])
predictor.delete_model()
predictor.delete_endpoint()
ecr.delete_repository(repositoryName="line", force=True)
docker("image", "rm", image)

ok = [float(row[0]) for row in first] == [9.0, 11.0] and first == second
print(json.dumps({"ok": ok, "first": first, "second": second}))
