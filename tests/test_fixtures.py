"""The shared fixtures hold what they say."""

from __future__ import annotations

import sqlalchemy as sa


def test_postgres_is_there_and_takes_connections(postgres_url: str):
    engine = sa.create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1 + 1")).scalar() == 2
    engine.dispose()
