"""A world on each kind of database that a ledger can live in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.sql import tables
from tests.delivery.world import World

_NUMBERS = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def each_ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database, or schema, without a row of others."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
    elif request.param == "postgresql":
        with own_schema(request.getfixturevalue("postgres_url")) as url:
            yield url
    else:
        url = request.getfixturevalue("mariadb_url")
        yield url
        empty_tables(url)


@contextmanager
def own_schema(server: str) -> Iterator[str]:
    schema = f"ledger_{next(_NUMBERS)}"
    engine = sa.create_engine(server)
    with engine.begin() as db:
        db.execute(sa.text(f"CREATE SCHEMA {schema}"))
    yield f"{server}?options=-csearch_path%3D{schema}"
    with engine.begin() as db:
        db.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


def empty_tables(url: str) -> None:
    """Creating MariaDB's tables anew for each test would take longer than most tests."""
    engine = sa.create_engine(url)
    with engine.begin() as db:
        for table in tables.METADATA.sorted_tables:
            db.execute(table.delete())
    engine.dispose()


@pytest.fixture
def empty_world(each_ledger_url: str) -> Iterator[World]:
    """A world in which nothing has happened."""
    world = World(each_ledger_url)
    yield world
    world.ledger.close()


@pytest.fixture
def world(empty_world: World) -> World:
    """A world with an order that the ledger knows: without one, absence in KK's list would prove nothing."""
    empty_world.sync("known")
    empty_world.clock.sleep(3600)
    return empty_world
