"""What runs inside a container: the training entry point and the model server. Python 3.8 or newer, no dependency."""
