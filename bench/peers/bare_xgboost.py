"""What a user would write without a platform: read the CSV, train XGBoost, save the model. Prints its log loss."""

import os
import sys

import pandas as pd
import xgboost

frame = pd.read_csv(sys.argv[1], header=None, dtype="float32")
matrix = xgboost.DMatrix(frame.iloc[:, 1:].to_numpy(), label=frame.iloc[:, 0].to_numpy())
parameters = {
    "objective": "binary:logistic", "eval_metric": "logloss", "max_depth": 6, "eta": 0.3, "tree_method": "hist",
    "nthread": len(os.sched_getaffinity(0)), "seed": 0,
}  # fmt: skip
history: dict[str, dict[str, list[float]]] = {}
booster = xgboost.train(
    parameters, matrix, int(sys.argv[3]), evals=[(matrix, "train")], evals_result=history, verbose_eval=False
)
booster.save_model(sys.argv[2])
print(history["train"]["logloss"][-1])
