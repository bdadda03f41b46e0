"""Everything that is kept: resources with their events and tags, objects, logs, metrics, identities."""
