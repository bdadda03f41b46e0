"""One instance: the agent that stages data, runs the container and ships what comes of it. `spec` is its language."""
