"""SageMaker Python SDK 1: k-means in a script of one's own, as a book's chapter writes it, on Python 3.8."""

import json
import os
import tempfile

import numpy as np
import sagemaker
from sagemaker.sklearn.estimator import SKLearn
from sklearn.datasets import load_iris

SCRIPT = """
import argparse
import os

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.externals import joblib

if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--n_clusters', type=int, default=3)
    parser.add_argument('--output-data-dir', type=str, default=os.environ['SM_OUTPUT_DATA_DIR'])
    parser.add_argument('--model-dir', type=str, default=os.environ['SM_MODEL_DIR'])
    parser.add_argument('--train', type=str, default=os.environ['SM_CHANNEL_TRAIN'])
    args = parser.parse_args()

    input_files = [os.path.join(args.train, file) for file in os.listdir(args.train)]
    train_data = pd.concat([pd.read_csv(file, header=None, engine="python") for file in input_files])
    kmeans = KMeans(n_clusters=args.n_clusters)
    kmeans.fit(train_data.values)
    joblib.dump(kmeans, os.path.join(args.model_dir, "model.joblib"))


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""

session = sagemaker.Session()
role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
data = load_iris()

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "iris.csv")
    np.savetxt(path, data.data, delimiter=",", fmt="%1.1f")
    train = session.upload_data(path, key_prefix="sdk1-sklearn/data")
    script = os.path.join(folder, "kmeans_script.py")
    with open(script, "w") as file:
        file.write(SCRIPT)
    sklearn = SKLearn(
        entry_point=script,
        train_instance_type="ml.m4.xlarge",
        role=role,
        sagemaker_session=session,
        hyperparameters={"n_clusters": 3},
    )
    sklearn.fit({"train": os.path.dirname(train)})
    predictor = sklearn.deploy(initial_instance_count=1, instance_type="ml.m4.xlarge")

clusters = predictor.predict(data.data)
sklearn.delete_endpoint()
assert set(clusters) == {0, 1, 2}, set(clusters)
pure = sum(np.bincount(data.target[clusters == cluster]).max() for cluster in range(3)) / len(clusters)
assert pure >= 0.85, pure
print(json.dumps({"ok": True, "purity": pure}))
