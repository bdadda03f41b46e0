#!/bin/sh
# The AWS CLI: train the built-in XGBoost, deploy, predict, clean up.
set -eu

name="cli-flow-$(date +%s)"
role="arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
image="683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

python - "$folder" <<'PYTHON'
import sys

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

folder = sys.argv[1]
features, labels = load_breast_cancer(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(
    features, labels, test_size=0.25, random_state=42, stratify=labels
)
np.savetxt(f"{folder}/train.csv", np.column_stack([train_y, train_x]), delimiter=",", fmt="%.10g")
np.savetxt(f"{folder}/test.csv", test_x, delimiter=",", fmt="%.10g")
np.savetxt(f"{folder}/labels.csv", test_y, fmt="%d")
PYTHON

aws sts get-caller-identity --query Account --output text >&2
aws s3 mb "s3://$name" >&2
aws s3 cp "$folder/train.csv" "s3://$name/train/train.csv" >&2
aws s3 ls "s3://$name/train/" >&2

aws sagemaker create-training-job \
    --training-job-name "$name" \
    --role-arn "$role" \
    --algorithm-specification "TrainingImage=$image,TrainingInputMode=File" \
    --hyper-parameters objective=binary:logistic,num_round=50,max_depth=4,eta=0.2 \
    --input-data-config "ChannelName=train,ContentType=text/csv,DataSource={S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$name/train/,S3DataDistributionType=FullyReplicated}}" \
    --output-data-config "S3OutputPath=s3://$name/output" \
    --resource-config InstanceType=ml.m5.xlarge,InstanceCount=1,VolumeSizeInGB=10 \
    --stopping-condition MaxRuntimeInSeconds=600 >&2

# The CLI's waiters ask every 30 to 120 seconds; asking here first spares the test the first pause.
state() { aws sagemaker "$1" "$2" "$name" --query "$3" --output text; }
count=0
while [ "$(state describe-training-job --training-job-name TrainingJobStatus)" = InProgress ] && [ $count -lt 200 ]; do
    count=$((count + 1))
    sleep 1
done
aws sagemaker wait training-job-completed-or-stopped --training-job-name "$name"
test "$(state describe-training-job --training-job-name TrainingJobStatus)" = Completed
artifact="$(state describe-training-job --training-job-name ModelArtifacts.S3ModelArtifacts)"
aws s3 cp "$artifact" "$folder/model.tar.gz" >&2
tar -tzf "$folder/model.tar.gz" >&2

aws sagemaker create-model --model-name "$name" --execution-role-arn "$role" \
    --primary-container "Image=$image,ModelDataUrl=$artifact" >&2
aws sagemaker create-endpoint-config --endpoint-config-name "$name" --production-variants \
    "VariantName=AllTraffic,ModelName=$name,InitialInstanceCount=1,InstanceType=ml.m5.xlarge" >&2
aws sagemaker create-endpoint --endpoint-name "$name" --endpoint-config-name "$name" >&2
count=0
while [ "$(state describe-endpoint --endpoint-name EndpointStatus)" = Creating ] && [ $count -lt 200 ]; do
    count=$((count + 1))
    sleep 1
done
aws sagemaker wait endpoint-in-service --endpoint-name "$name"
aws sagemaker-runtime invoke-endpoint --endpoint-name "$name" --content-type text/csv --accept text/csv \
    --body "fileb://$folder/test.csv" "$folder/answer.csv" >&2

aws sagemaker delete-endpoint --endpoint-name "$name"
aws sagemaker delete-endpoint-config --endpoint-config-name "$name"
aws sagemaker delete-model --model-name "$name"
aws s3 rb "s3://$name" --force >&2

python - "$folder" "$name" <<'PYTHON'
import json
import sys

import numpy as np

folder, name = sys.argv[1:]
text = open(f"{folder}/answer.csv").read()
scores = np.array(text.replace("\n", ",").strip(",").split(","), dtype=float)
labels = np.loadtxt(f"{folder}/labels.csv")
assert scores.shape == labels.shape, scores.shape
accuracy = float(((scores > 0.5) == labels).mean())
assert accuracy >= 0.96, accuracy
print(json.dumps({"ok": True, "job": name, "accuracy": accuracy}))
PYTHON
