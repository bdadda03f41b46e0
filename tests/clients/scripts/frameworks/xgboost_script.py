"""Linear boosting with XGBoost in script mode; its container loads the model by itself."""

import argparse
import os

import pandas as pd
import xgboost

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_round", type=int, default=100)
    args = parser.parse_args()

    data = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"), header=None).values
    parameters = {"booster": "gblinear", "eta": 0.8, "lambda": 0.0}
    booster = xgboost.train(parameters, xgboost.DMatrix(data[:, 1:], data[:, 0]), args.num_round)
    booster.save_model(os.path.join(os.environ["SM_MODEL_DIR"], "xgboost-model"))
