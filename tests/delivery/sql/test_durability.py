"""Weak settings of the ledger's database are seen, on the databases themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.database import durability_warnings
from tests.postgres import find_binaries, throwaway_postgres


def engine_of(url: str, **arguments: Any) -> Engine:
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"), **arguments)


def seen(engine: Engine, *, mounts: Path | None = None) -> list[str]:
    """What is found: texts, notes marked as such."""
    arguments = {} if mounts is None else {"mounts": mounts}
    with engine.connect() as db:
        return [("note: " if one.is_note else "") + one.text for one in durability_warnings(db, **arguments)]


class TestSQLite:
    @pytest.fixture
    def mounts(self, tmp_path: Path) -> Path:
        """A machine's table of mounts, in which `tmp_path` is on a local disk."""
        table = tmp_path / "mounts"
        table.write_text("/dev/vda / ext4 rw 0 0\n")
        return table

    def engine(self, tmp_path: Path, *pragmas: str) -> Engine:
        engine = engine_of(f"sqlite:///{tmp_path / 'ledger.db'}")
        for pragma in pragmas:
            sa.event.listen(engine, "connect", lambda db, _record, pragma=pragma: db.execute(pragma))
        tables.METADATA.create_all(engine)
        return engine

    @pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "WAL"])
    def test_a_file_on_a_local_disk_is_well(self, tmp_path: Path, mounts: Path, mode: str) -> None:
        engine = self.engine(tmp_path, f"PRAGMA journal_mode={mode}")
        assert seen(engine, mounts=mounts) == []

    @pytest.mark.parametrize("mode", ["off", "memory"])
    def test_a_journal_that_no_crash_survives_is_reported(
        self, tmp_path: Path, mounts: Path, mode: str
    ) -> None:
        (told,) = seen(self.engine(tmp_path, f"PRAGMA journal_mode={mode}"), mounts=mounts)
        assert f"journal_mode = {mode}" in told
        assert "Use journal_mode = WAL or DELETE" in told

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
    def test_a_ledger_in_memory_is_reported(self, url: str) -> None:
        (told,) = seen(engine_of(url))
        assert "in memory" in told

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("tmpfs", "lost when the machine restarts"),
            ("ramfs", "lost when the machine restarts"),
            ("overlay", "lost with the container"),
            ("nfs4", "network file system"),
            ("cifs", "network file system"),
            ("smb3", "network file system"),
            ("fuse.sshfs", "network file system"),
        ],
    )
    def test_a_file_system_that_keeps_or_locks_nothing_is_reported(
        self, tmp_path: Path, mounts: Path, kind: str, words: str
    ) -> None:
        folder = str(tmp_path).replace(" ", r"\040")
        mounts.write_text(f"/dev/vda / ext4 rw 0 0\nx {folder} {kind} rw 0 0\nx {folder}/other ext4 rw 0 0\n")
        (told,) = seen(self.engine(tmp_path), mounts=mounts)
        assert words in told
        assert f"({kind})" in told

    @pytest.mark.parametrize("rows", ["x {} tmpfs rw 0 0\nx {} xfs rw 0 0\n", "x {} fuseblk rw 0 0\n"])
    def test_a_local_disk_mounted_over_something_else_is_well(
        self, tmp_path: Path, mounts: Path, rows: str
    ) -> None:
        mounts.write_text(rows.replace("{}", str(tmp_path)))
        assert seen(self.engine(tmp_path), mounts=mounts) == []

    def test_a_machine_without_a_table_of_mounts_is_not_judged(self, tmp_path: Path) -> None:
        assert seen(self.engine(tmp_path), mounts=tmp_path / "missing") == []

    @pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="Linux has it")  # noqa: S108 - memory, to be fast
    def test_the_machines_own_table_is_read(self) -> None:
        path = Path(f"/dev/shm/ledger-{os.getpid()}.db")  # noqa: S108 - memory, to be fast
        try:
            assert any("tmpfs" in text for text in seen(engine_of(f"sqlite:///{path}")))
        finally:
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def postgres_pair() -> Iterator[tuple[Engine, Engine]]:
    """A durable PostgreSQL, and a standby that it does not wait for."""
    binaries = find_binaries()
    if binaries is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is not installed")
    with ExitStack() as stack:
        primary = stack.enter_context(throwaway_postgres(binaries, settings=""))
        port = int(primary.rpartition(":")[2].partition("/")[0])
        standby = stack.enter_context(throwaway_postgres(binaries, settings="", copy_of=port))
        engines = [engine_of(url, poolclass=NullPool) for url in (primary, standby)]
        tables.METADATA.create_all(engines[0])
        yield engines[0], engines[1]


class TestPostgreSQL:
    @pytest.fixture
    def primary(self, postgres_pair: tuple[Engine, Engine]) -> Iterator[Engine]:
        """As it should be: it even waits for its standby."""
        primary, _standby = postgres_pair
        configure(primary, "synchronous_standby_names", "*")
        yield primary
        for name in ("fsync", "full_page_writes", "synchronous_standby_names"):
            configure(primary, name, None)

    def test_a_durable_one_is_well(self, primary: Engine) -> None:
        assert seen(primary) == []

    @pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
    def test_writes_that_no_crash_survives_are_reported(self, primary: Engine, name: str) -> None:
        configure(primary, name, "off")
        (told,) = seen(primary)
        assert f"{name} = off" in told
        assert f"Set {name} = on" in told

    def test_a_commit_that_does_not_wait_for_the_disk_is_reported(self, primary: Engine) -> None:
        with primary.connect() as db:
            db.exec_driver_sql("SET synchronous_commit = off")
            found = durability_warnings(db)
        assert "synchronous_commit = on" in found[0].text

    def test_tables_that_a_crash_empties_are_reported(self, primary: Engine) -> None:
        run(primary, "ALTER TABLE kk_order SET UNLOGGED", "ALTER TABLE kk_account SET UNLOGGED")
        try:
            (told,) = seen(primary)
            assert "tables kk_account, kk_order are UNLOGGED" in told
        finally:
            run(primary, "ALTER TABLE kk_order SET LOGGED", "ALTER TABLE kk_account SET LOGGED")

    def test_standbys_that_are_not_waited_for_are_a_note(self, primary: Engine) -> None:
        configure(primary, "synchronous_standby_names", None)
        (told,) = seen(primary)
        assert told.startswith("note: ")
        assert "synchronous_standby_names" in told

    def test_a_standby_is_reported(self, postgres_pair: tuple[Engine, Engine]) -> None:
        (told,) = seen(postgres_pair[1])
        assert "is a standby" in told

    def test_without_privileges_the_visible_settings_are_reported(self, primary: Engine) -> None:
        run(primary, "DROP ROLE IF EXISTS nobody", "CREATE ROLE nobody LOGIN")
        configure(primary, "fsync", "off")
        (told,) = seen(engine_of(str(primary.url).replace("postgres@", "nobody@"), poolclass=NullPool))
        assert "fsync = off" in told

    def test_a_failed_durability_check_is_a_note_and_no_failure(self, primary: Engine) -> None:
        with primary.connect() as db:
            db.exec_driver_sql("SET statement_timeout = 50")
            other = primary.connect()
            with other, other.begin():
                other.exec_driver_sql("LOCK TABLE pg_class")
                (found,) = durability_warnings(db)
        assert found.is_note
        assert "could not be checked" in found.text


def run(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        for statement in statements:
            db.exec_driver_sql(statement)


def configure(engine: Engine, name: str, value: str | None) -> None:
    """Set one of the server's settings (None: the default), and wait until new sessions have it."""
    run(engine, f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'")
    run(engine, "SELECT pg_reload_conf()")
    is_set = f"SELECT setting = coalesce({'NULL' if value is None else repr(value)}, boot_val)"
    for _ in range(100):
        with engine.connect() as db:
            if db.exec_driver_sql(f"{is_set} FROM pg_settings WHERE name = '{name}'").scalar_one():
                return
        time.sleep(0.05)
    pytest.fail(f"{name} was not changed")


class TestMySQL:
    @pytest.fixture
    def engine(self, mariadb_url: str) -> Iterator[Engine]:
        """A server that is durable, with a binary log, and the ledger's tables on it."""
        engine = sa.create_engine(mariadb_url, poolclass=NullPool)
        tables.METADATA.create_all(engine)
        before = {name: self.get(engine, name) for name in ("innodb_flush_log_at_trx_commit", "sync_binlog")}
        run(engine, "SET GLOBAL innodb_flush_log_at_trx_commit = 1", "SET GLOBAL sync_binlog = 1")
        yield engine
        run(engine, *(f"SET GLOBAL {name} = {value}" for name, value in before.items()))

    def get(self, engine: Engine, name: str) -> Any:
        with engine.connect() as db:
            return db.exec_driver_sql(f"SELECT @@global.{name}").scalar_one()

    def test_a_durable_one_is_well(self, engine: Engine) -> None:
        assert seen(engine) == []

    @pytest.mark.parametrize("flush", [0, 2])
    def test_a_commit_that_does_not_wait_for_the_disk_is_reported(self, engine: Engine, flush: int) -> None:
        run(engine, f"SET GLOBAL innodb_flush_log_at_trx_commit = {flush}")
        (told,) = seen(engine)
        assert f"innodb_flush_log_at_trx_commit = {flush}" in told

    def test_mariadbs_slower_way_of_waiting_for_the_disk_is_well(self, engine: Engine) -> None:
        run(engine, "SET GLOBAL innodb_flush_log_at_trx_commit = 3")
        assert seen(engine) == []

    def test_tables_without_transactions_are_reported(self, engine: Engine) -> None:
        run(engine, "ALTER TABLE kk_account ENGINE = Aria")
        (told,) = seen(engine)
        run(engine, "ALTER TABLE kk_account ENGINE = InnoDB")
        assert "kk_account are not InnoDB" in told

    def test_a_binary_log_that_may_lack_the_last_orders_is_a_note(self, engine: Engine) -> None:
        run(engine, "SET GLOBAL sync_binlog = 1000")
        (told,) = seen(engine)
        assert told.startswith("note: ")
        assert "sync_binlog = 1000" in told
