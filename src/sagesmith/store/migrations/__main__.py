"""``python -m sagesmith.store.migrations revision MESSAGE | snapshot``: see the package."""

from __future__ import annotations

import argparse
import tempfile

from alembic import command

from sagesmith.store.migrations import DIALECTS, alembic_config, head, snapshot, snapshot_file


def main() -> None:
    """Write a migration, or the snapshots."""
    parser = argparse.ArgumentParser(prog="python -m sagesmith.store.migrations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    revision = commands.add_parser("revision", help="write a migration from the last one to schema.py")
    revision.add_argument("message", help="what changes, in a few words")
    commands.add_parser("snapshot", help="write the DDL of a new database")
    arguments = parser.parse_args()
    if arguments.command == "snapshot":
        for dialect in DIALECTS:
            snapshot_file(dialect).write_text(snapshot(dialect), "utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        config = alembic_config(f"sqlite:///{folder}/previous.db")
        try:
            number = int(head()) + 1
        except ValueError:  # there is none yet
            number = 1
        else:
            command.upgrade(config, "head")
        command.revision(config, arguments.message, autogenerate=True, rev_id=f"{number:04d}")


if __name__ == "__main__":
    main()
