"""SageMaker Python SDK 2: scikit-learn in script mode, as its example notebooks write it."""

import json
import os
import tempfile

import numpy as np
import sagemaker
from sagemaker.sklearn import SKLearn
from sklearn.datasets import load_iris

SCRIPT = '''
import argparse
import os

import joblib
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_leaf_nodes", type=int, default=-1)
    parser.add_argument("--output-data-dir", type=str, default=os.environ["SM_OUTPUT_DATA_DIR"])
    parser.add_argument("--model-dir", type=str, default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--train", type=str, default=os.environ["SM_CHANNEL_TRAIN"])
    args = parser.parse_args()

    files = [os.path.join(args.train, file) for file in os.listdir(args.train)]
    data = pd.concat([pd.read_csv(file, header=None, engine="python") for file in files])
    tree = DecisionTreeClassifier(max_leaf_nodes=args.max_leaf_nodes).fit(data.iloc[:, 1:], data.iloc[:, 0])
    joblib.dump(tree, os.path.join(args.model_dir, "model.joblib"))


def model_fn(model_dir):
    """Deserialize and return the fitted model."""
    return joblib.load(os.path.join(model_dir, "model.joblib"))
'''

session = sagemaker.Session()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
data = load_iris()

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "iris.csv")
    np.savetxt(path, np.column_stack([data.target, data.data]), delimiter=",", fmt="%1.1f")
    train = session.upload_data(path, key_prefix="sdk2-sklearn/data")
    script = os.path.join(folder, "scikit_learn_iris.py")
    with open(script, "w") as file:
        file.write(SCRIPT)
    sklearn = SKLearn(
        entry_point=script,
        framework_version="1.4-2",
        instance_type="ml.c4.xlarge",
        role=role,
        sagemaker_session=session,
        hyperparameters={"max_leaf_nodes": 30},
    )
    sklearn.fit({"train": os.path.dirname(train)})
    predictor = sklearn.deploy(initial_instance_count=1, instance_type="ml.m4.xlarge")

predictions = predictor.predict(data.data)
predictor.delete_model()
predictor.delete_endpoint()
accuracy = float((predictions == data.target).mean())
assert accuracy >= 0.98, accuracy
print(json.dumps({"ok": True, "accuracy": accuracy}))
