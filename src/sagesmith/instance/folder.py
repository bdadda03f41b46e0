"""The files in an instance's folder, by which its agent and the fleet know each other's state."""

from __future__ import annotations

from typing import Final

__all__ = ["AGENT", "AGENT_LOG", "JOURNAL", "NODE", "SPEC"]

SPEC: Final = "spec.json"
"""What to do; it appears once the instance has work."""
NODE: Final = "node.json"
"""Where it runs."""
AGENT: Final = "agent.json"
"""Which process its agent is."""
AGENT_LOG: Final = "agent.log"
"""What the agent says of itself."""
JOURNAL: Final = "journal"
"""The messages that the server has not acknowledged yet."""
