"""Whether the ledger's database keeps what it has committed, told by its settings. Looks, changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.driver_errors import describe_error

MOUNTS = Path("/proc/mounts")

_LOSS = (
    "after a crash of its machine the ledger may not know orders that it had recorded, and one that KK's "
    "list does not show yet is then ordered a second time"
)
_ALL_LOST = "and with it all that is known of sent orders"
_ADOPTED = "The next sync adopts those that KK's list shows"
#: Beginnings of the names of file systems.
_NETWORK = ("9p", "afs", "beegfs", "ceph", "cifs", "fuse", "gfs2", "glusterfs", "lustre", "nfs", "smb")
_TABLES = ", ".join(f"'{table.name}'" for table in tables.METADATA.sorted_tables)


@dataclass(frozen=True)
class DurabilityWarning:
    """A setting by which the ledger may lose what it has recorded: what it means, and what to set."""

    text: str
    is_note: bool = False
    """Whether it is common and for the user to weigh, and no reason for a warning."""


def durability_warnings(db: Connection, *, mounts: Path = MOUNTS) -> list[DurabilityWarning]:
    """Return what is weak about the database behind `db`, by one query or two; empty when nothing is.

    What the database does not let us see is a note. Sources: PostgreSQL's manual, chapters "Write Ahead
    Log" and "Replication"; SQLite's pages "PRAGMA" and "How To Corrupt"; MySQL's manual, "InnoDB Startup
    Options" and "Binary Logging Options".

    :param mounts: the machine's table of mounts, for a ledger in a file.
    """
    looks: dict[str, Callable[[], Iterator[DurabilityWarning]]] = {
        "postgresql": lambda: _of_postgresql(db),
        "sqlite": lambda: _of_sqlite(db, mounts),
        "mysql": lambda: _of_mysql(db),
        "mariadb": lambda: _of_mysql(db),
    }
    try:
        return list(looks[db.dialect.name]())
    except DBAPIError as error:
        return [
            DurabilityWarning(
                f"Whether the ledger's database is durable could not be seen ({describe_error(error)}): "
                "docs/delivery.md says how it should be set.",
                is_note=True,
            )
        ]


def _of_postgresql(db: Connection) -> Iterator[DurabilityWarning]:
    row: Any = db.exec_driver_sql(
        "SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"  # noqa: S608 - constant names
        " current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS is_standby,"
        " current_setting('synchronous_standby_names') AS waits_for,"
        " (SELECT count(*) FROM pg_stat_replication) AS standbys,"
        " (SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class"
        f"  WHERE relname IN ({_TABLES}) AND relpersistence = 'u' AND pg_table_is_visible(oid)) AS unlogged"
    ).one()
    if row.fsync == "off":
        yield DurabilityWarning(f"The ledger's PostgreSQL has fsync = off: {_LOSS}. Set fsync = on.")
    if row.full_page_writes == "off":
        yield DurabilityWarning(
            "The ledger's PostgreSQL has full_page_writes = off: a crash of its machine may leave damaged "
            "rows in the ledger. Set full_page_writes = on, unless the file system rules out torn pages."
        )
    if row.synchronous_commit == "off":
        yield DurabilityWarning(
            "The ledger's PostgreSQL keeps synchronous_commit = off though the provider asks for on: "
            f"{_LOSS}. Run ALTER ROLE ... SET synchronous_commit = on for the connection's user."
        )
    if row.unlogged:
        yield DurabilityWarning(
            f"The ledger's tables {row.unlogged} are UNLOGGED: PostgreSQL empties them after a crash, "
            f"{_ALL_LOST}. Run ALTER TABLE ... SET LOGGED on each."
        )
    if row.is_standby:
        yield DurabilityWarning(
            "The ledger's PostgreSQL is a standby: it is read-only and may show old rows. "
            "Point the ledger's connection to the primary."
        )
    if row.standbys and (not row.waits_for or row.synchronous_commit in ("off", "local")):
        yield DurabilityWarning(
            "The ledger's PostgreSQL does not wait for its standbys: when one of them takes over, the last "
            f"orders may be missing. {_ADOPTED}; set synchronous_standby_names, and "
            "synchronous_commit = on, to lose none.",
            is_note=True,
        )


def _of_mysql(db: Connection) -> Iterator[DurabilityWarning]:
    row: Any = db.exec_driver_sql(
        "SELECT @@global.innodb_flush_log_at_trx_commit AS flush, @@global.log_bin AS log_bin,"  # noqa: S608 - constant names
        " @@global.sync_binlog AS sync_binlog,"
        " (SELECT group_concat(table_name ORDER BY table_name) FROM information_schema.tables"
        f"  WHERE table_schema = database() AND table_name IN ({_TABLES}) AND engine <> 'InnoDB') AS others"
    ).one()
    if row.flush not in (1, 3):  # 3 is MariaDB's alone, and waits, too
        yield DurabilityWarning(
            f"The ledger's MySQL has innodb_flush_log_at_trx_commit = {row.flush}: {_LOSS}. Set it to 1."
        )
    if row.others:
        yield DurabilityWarning(
            f"The ledger's tables {row.others} are not InnoDB: they have no transactions, and a crash may "
            "destroy them. Run ALTER TABLE ... ENGINE=InnoDB on each."
        )
    if row.log_bin and row.sync_binlog != 1:
        yield DurabilityWarning(
            f"The ledger's MySQL has sync_binlog = {row.sync_binlog}: a replica that takes over after a "
            f"crash may lack the last orders. {_ADOPTED}; set sync_binlog = 1 to lose none.",
            is_note=True,
        )


def _of_sqlite(db: Connection, mounts: Path) -> Iterator[DurabilityWarning]:
    file = next(row[2] for row in db.exec_driver_sql("PRAGMA database_list") if row[1] == "main")
    if not file:
        yield DurabilityWarning(
            f"The ledger is an SQLite database in memory: it is gone with the process, {_ALL_LOST}. "
            "Name a file on a local disk."
        )
        return
    mode = str(db.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    if mode.lower() in ("off", "memory"):
        yield DurabilityWarning(
            f"The ledger's SQLite file has journal_mode = {mode}: a crash while it writes may destroy it. "
            "Use journal_mode = WAL or DELETE."
        )
    yield from _of_file_system(file, _file_system(Path(file), mounts))


def _of_file_system(file: str, kind: str) -> Iterator[DurabilityWarning]:
    if kind in ("tmpfs", "ramfs"):
        yield DurabilityWarning(
            f"The ledger {file} is in memory ({kind}): it is gone when the machine restarts, {_ALL_LOST}. "
            "Move it to a local disk."
        )
    elif kind == "overlay":
        yield DurabilityWarning(
            f"The ledger {file} is in a container's own layer ({kind}): it is gone with the container, "
            f"{_ALL_LOST}. Put it on a volume."
        )
    elif kind.startswith(_NETWORK) and kind != "fuseblk":
        yield DurabilityWarning(
            f"The ledger {file} is on a network file system ({kind}), where SQLite's locks and syncs may not "
            "hold: two workers may send one order. Use a local disk or PostgreSQL."
        )


def _file_system(file: Path, mounts: Path) -> str:
    """Return the type of the file system that holds `file`; empty when it cannot be told."""
    try:
        rows = [line.split(" ") for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    kinds = {_unescaped(row[1]): row[2] for row in rows}  # a later mount hides an earlier one at its place
    return next((kinds[str(folder)] for folder in file.resolve().parents if str(folder) in kinds), "")


def _unescaped(mount_point: str) -> str:
    return mount_point.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\134", "\\")
