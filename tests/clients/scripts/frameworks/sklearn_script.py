"""Linear regression with scikit-learn in script mode."""

import argparse
import os

import joblib
import pandas as pd
from sklearn.linear_model import LinearRegression

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fit_intercept", type=int, default=1)
    args = parser.parse_args()

    data = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"), header=None)
    model = LinearRegression(fit_intercept=bool(args.fit_intercept)).fit(
        data.values[:, 1:], data.values[:, 0]
    )
    joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))


def model_fn(model_dir):
    """Load the model."""
    return joblib.load(os.path.join(model_dir, "model.joblib"))
