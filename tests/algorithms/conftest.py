from __future__ import annotations

from hypothesis import settings

# First calls load libraries, and the machine may be busy: no deadline.
settings.register_profile("algorithms", deadline=None, max_examples=50)
settings.load_profile("algorithms")
