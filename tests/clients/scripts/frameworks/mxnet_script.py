"""Linear regression with MXNet's Module in script mode; its container loads symbol, parameters and shapes."""

import argparse
import json
import os

import mxnet as mx
import numpy as np

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()

    data = np.loadtxt(
        os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"), delimiter=",", dtype=np.float32
    )
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=1, name="linear")
    symbol = mx.sym.LinearRegressionOutput(symbol, mx.sym.var("label"), name="output")
    module = mx.mod.Module(symbol, data_names=["data"], label_names=["label"], context=mx.cpu())
    rows = mx.io.NDArrayIter(data[:, 1:], data[:, :1], batch_size=50, label_name="label")
    module.fit(
        rows,
        num_epoch=args.epochs,
        eval_metric="mse",
        optimizer="sgd",
        optimizer_params={"learning_rate": 0.2},
    )
    folder = os.environ["SM_MODEL_DIR"]
    module.save_checkpoint(os.path.join(folder, "model"), 0)
    with open(os.path.join(folder, "model-shapes.json"), "w") as file:
        json.dump([{"name": "data", "shape": [1, 2]}], file)
