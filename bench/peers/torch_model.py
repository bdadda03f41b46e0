"""A PyTorch model in script mode, for Sagesmith as for its peers: two hidden layers of 64 units over 64 features.

Its weights are given, not trained, so that every version of the library predicts the same.
"""

import torch

WIDTH = 64


def model_fn(model_dir):
    """Return the model; *model_dir* has nothing of it."""
    layers = [torch.nn.Linear(WIDTH, n_outputs) for n_outputs in (WIDTH, WIDTH, 1)]
    with torch.no_grad():
        for layer in layers:
            weights = torch.sin(torch.arange(layer.weight.numel(), dtype=torch.float64))
            layer.weight.copy_(weights.reshape(layer.weight.shape) / 8)
            layer.bias.zero_()
    relu = torch.nn.ReLU()
    return torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2], torch.nn.Sigmoid()).eval()


def predict_fn(data, model):
    """Return the probability for each row."""
    with torch.inference_mode():
        rows = torch.as_tensor(data, dtype=torch.float32)
        return model(torch.atleast_2d(rows))[:, 0].numpy()
