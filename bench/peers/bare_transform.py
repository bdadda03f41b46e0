"""What a user would write without a platform: read the CSV, load the XGBoost model, predict, write the scores."""

import os
import sys

import pandas as pd
import xgboost

frame = pd.read_csv(sys.argv[2], header=None, dtype="float32")
booster = xgboost.Booster({"nthread": len(os.sched_getaffinity(0))}, model_file=sys.argv[1])
scores = booster.predict(xgboost.DMatrix(frame.to_numpy()))
pd.Series(scores).to_csv(sys.argv[3], header=False, index=False)
