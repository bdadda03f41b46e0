"""Endpoints at work: the gateway that carries invocations, and the driver that keeps instances behind it."""
