"""Plain boto3: train the built-in XGBoost, deploy, predict, clean up; with waiters."""

import json
import time

import boto3
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

name = f"boto3-flow-{int(time.time())}"
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
sagemaker = boto3.client("sagemaker")
runtime = boto3.client("sagemaker-runtime")
s3 = boto3.client("s3")


def csv(*columns):
    return "\n".join(",".join(f"{value:.10g}" for value in row) for row in np.column_stack(columns))


features, labels = load_breast_cancer(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(
    features, labels, test_size=0.25, random_state=42, stratify=labels
)
location = {}
if boto3.Session().region_name != "us-east-1":
    location = {"CreateBucketConfiguration": {"LocationConstraint": boto3.Session().region_name}}
s3.create_bucket(Bucket=name, **location)
s3.get_waiter("bucket_exists").wait(Bucket=name)
s3.put_object(Bucket=name, Key="train/train.csv", Body=csv(train_y, train_x))

sagemaker.create_training_job(
    TrainingJobName=name,
    RoleArn=role,
    AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
    HyperParameters={"objective": "binary:logistic", "num_round": "50", "max_depth": "4", "eta": "0.2"},
    InputDataConfig=[
        {
            "ChannelName": "train",
            "ContentType": "text/csv",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": f"s3://{name}/train/",
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
        }
    ],
    OutputDataConfig={"S3OutputPath": f"s3://{name}/output"},
    ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
    StoppingCondition={"MaxRuntimeInSeconds": 600},
)
sagemaker.get_waiter("training_job_completed_or_stopped").wait(
    TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
)
job = sagemaker.describe_training_job(TrainingJobName=name)
assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
artifact = job["ModelArtifacts"]["S3ModelArtifacts"]
assert artifact == f"s3://{name}/output/{name}/output/model.tar.gz", artifact

logs = boto3.client("logs")
group = "/aws/sagemaker/TrainingJobs"
streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
lines = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"])["events"]
assert lines, "the job wrote no log"

sagemaker.create_model(
    ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": image, "ModelDataUrl": artifact}
)
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.xlarge",
        }
    ],
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
sagemaker.get_waiter("endpoint_in_service").wait(
    EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
)
answer = runtime.invoke_endpoint(
    EndpointName=name, ContentType="text/csv", Accept="text/csv", Body=csv(test_x)
)
text = answer["Body"].read().decode()
assert answer["InvokedProductionVariant"] == "AllTraffic"

sagemaker.delete_endpoint(EndpointName=name)
sagemaker.get_waiter("endpoint_deleted").wait(
    EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
)
sagemaker.delete_endpoint_config(EndpointConfigName=name)
sagemaker.delete_model(ModelName=name)

scores = np.array(text.replace("\n", ",").strip(",").split(","), dtype=float)
assert scores.shape == test_y.shape, scores.shape
accuracy = float(((scores > 0.5) == test_y).mean())
assert accuracy >= 0.96, accuracy
print(json.dumps({"ok": True, "job": name, "accuracy": accuracy}))
