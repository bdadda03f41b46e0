"""The other servers: how each is configured, and a process that is stopped while others are measured."""
