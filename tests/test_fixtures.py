"""The shared fixtures hold what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from airflow_provider_kk.api.client import KKClient

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer


def test_postgres_is_there_and_takes_connections(postgres_url: str):
    engine = sa.create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1 + 1")).scalar() == 2
    engine.dispose()


def test_the_sandbox_answers_as_kk_does(sandbox: SandboxServer):
    with KKClient(sandbox.url, sandbox.token) as client:
        assert client.list_orders().orders == []
