"""Linear regression with PyTorch in script mode, on one host or under torchrun on several."""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist


def model_fn(model_dir):
    """Load the weights into the model."""
    model = torch.nn.Linear(2, 1)
    model.load_state_dict(torch.load(os.path.join(model_dir, "model.pth")))
    return model.eval()


def main():
    """Train, and save from the first process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=200)
    args = parser.parse_args()
    distributed = "WORLD_SIZE" in os.environ
    if distributed:
        dist.init_process_group("gloo")
        print(f"process {dist.get_rank()} of {dist.get_world_size()}")

    data = np.loadtxt(
        os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"), delimiter=",", dtype=np.float32
    )
    features, labels = torch.from_numpy(data[:, 1:]), torch.from_numpy(data[:, :1])
    model = torch.nn.Linear(2, 1)
    trained = torch.nn.parallel.DistributedDataParallel(model) if distributed else model
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.2)
    for _ in range(args.epochs):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(trained(features), labels).backward()
        optimizer.step()
    if not distributed or dist.get_rank() == 0:
        torch.save(model.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
