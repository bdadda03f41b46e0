"""What Alembic runs: it connects to the database of its configuration and migrates it to `schema.metadata`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sagesmith.store.schema import load_metadata


def run() -> None:
    """Migrate in one transaction; on PostgreSQL one server at a time."""
    engine = create_engine(context.config.attributes["url"], poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=load_metadata(),
            compare_type=True,
            render_as_batch=connection.dialect.name == "sqlite",
        )
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(5269217)"))
            context.run_migrations()
    engine.dispose()


run()
