"""Linear regression with TensorFlow in script mode; what it leaves is a SavedModel with a version."""

import argparse
import os

import numpy as np
import tensorflow as tf


class Linear(tf.Module):
    """A row's weighted sum."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(tf.zeros([2, 1]))
        self.bias = tf.Variable(tf.zeros([1]))

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x):
        return x @ self.weight + self.bias


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--model_dir", default="")
    args = parser.parse_args()

    data = np.loadtxt(
        os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"), delimiter=",", dtype=np.float32
    )
    features, labels = tf.constant(data[:, 1:]), tf.constant(data[:, :1])
    model = Linear()
    for _ in range(args.epochs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(features) - labels) ** 2)
        slopes = tape.gradient(loss, [model.weight, model.bias])
        model.weight.assign_sub(0.2 * slopes[0])
        model.bias.assign_sub(0.2 * slopes[1])
    tf.saved_model.save(model, os.path.join(os.environ["SM_MODEL_DIR"], "1"), signatures=model.__call__)
