"""A shop, its ledger and its KK, and the tasks that a trial runs on them."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.children import Task
from tests.chaos.kk_process import KKProcess
from tests.chaos.virtual_time import pause
from tests.operators import shop

#: Everything else is the default: leases, timeouts and windows have their real lengths in virtual time.
_EXTRA = {"rate_limit_burst": 10_000, "rate_limit_per_second": 1_000}


class World:
    """What a trial finds: `begin` makes it new.

    What is not tested is made cheap, in this process and what it forks: connections are looked up once, and
    the statements that SQLAlchemy has compiled are kept from one child to the next.
    """

    def __init__(self, folder: Path, kk: KKProcess, postgres_url: str | None = None) -> None:
        self.kk = kk
        self.ledger_path = folder / "ledger.db"
        self.warehouse_path = folder / "warehouse.db"
        self.postgres_url = postgres_url
        self.account = "default"
        self.ledger_conn_id = "ledger"
        self._connections: dict[str, Any] = {}
        self._engines: dict[str, Any] = {}
        self._patch()

    @property
    def ledgers(self) -> tuple[str, ...]:
        """Where a ledger can be: in a file of its own, in the file of the rows, on a server."""
        return ("file", "warehouse", "postgres") if self.postgres_url else ("file", "warehouse")

    def begin(
        self,
        numbers: Iterable[int],
        faults: Mapping[str, list[dict[str, Any]]],
        *,
        ledger: str,
        account: str,
        list_lag_s: float,
        max_orders_per_day: int | None = None,
    ) -> None:
        """An empty ledger, a warehouse with these orders, a KK that will do this to them.

        :param ledger: `file`, `warehouse` (in the same file as the rows) or `postgres`.
        """
        self.kk.ask("begin", dict(faults), list_lag_s=list_lag_s)
        for path in (self.ledger_path, self.warehouse_path):
            for suffix in ("", "-journal"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        shop.Warehouse(self.warehouse_path).add(*shop.rows(numbers))
        self.account, self.ledger_conn_id = account, ledger
        self.set_cap(max_orders_per_day)

    def set_cap(self, max_orders_per_day: int | None) -> None:
        """Change the connection's cap for all tasks that start later."""
        extra = {**_EXTRA, "account": self.account}
        if max_orders_per_day is not None:
            extra["max_orders_per_day"] = max_orders_per_day
        kk = {"conn_type": "kk", "host": self.kk.url, "password": self.kk.token}
        self._connect("kk_default", kk | {"extra": json.dumps(extra)})

    # Tasks -----------------------------------------------------------------------------------------

    def sync(self, numbers: Iterable[int], *, run_id: str, try_number: int = 1, **options: Any) -> Task:
        """A SyncOrdersOperator over some of the orders."""
        from airflow_provider_kk.operators.orders import SyncOrdersOperator

        names = ", ".join(f"'{shop.number(n)}'" for n in numbers)

        def task() -> dict[str, Any]:
            operator = SyncOrdersOperator(
                task_id="sync",
                sql=f"{shop.SELECT} WHERE custom_order_number IN ({names})",
                warehouse_conn_id="warehouse",
                ledger_conn_id=self.ledger_conn_id,
                **options,
            )
            return _told(shop.attempt(operator, run_id=run_id, try_number=try_number))

        return task

    def create(self, n: int, *, run_id: str, try_number: int = 1, **options: Any) -> Task:
        """A CreateOrderOperator for one of the orders."""
        from airflow_provider_kk.operators.orders import CreateOrderOperator

        def task() -> dict[str, Any]:
            operator = CreateOrderOperator(
                task_id=f"create_{n}",
                order=shop.order(n),
                ledger_conn_id=self.ledger_conn_id,
                **options,
            )
            return _told(shop.attempt(operator, run_id=run_id, try_number=try_number))

        return task

    def pause(self) -> Task:
        """What `kk pause` does."""
        return self._change_pause(lambda storage: storage.add_pause("somebody", "wrong query"))

    def resume(self) -> Task:
        """What `kk resume` does."""
        return self._change_pause(lambda storage: storage.end_pause("somebody", "query fixed"))

    def _change_pause(self, change: Callable[[Any], bool]) -> Task:
        from airflow_provider_kk.hooks.kk import KKHook
        from airflow_provider_kk.hooks.ledger_connection import open_ledger

        def task() -> dict[str, Any]:
            told = {"summary": None, "ids": None, "error": "", "message": ""}
            try:
                change(open_ledger(KKHook(), self.ledger_conn_id, threads=1).storage)
            except Exception as error:  # a worker that stands still may hold a lock of the file
                told |= {"error": type(error).__name__, "message": str(error)}
            return told

        return task

    def quiet(self) -> None:
        """Return when all that was sent to KK, and to the ledger's server, has been acted upon."""
        self.kk.quiet()
        if self.ledger_conn_id == "postgres":
            self._wait_for_sessions()

    # Looking ---------------------------------------------------------------------------------------

    def ledger(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The account's rows of `kk_order`, and those of `kk_order_attempt`."""
        import sqlalchemy as sa

        with self._engine(self.ledger_conn_id).connect() as db:
            if not sa.inspect(db).has_table("kk_order"):
                return [], []
            both = [
                [dict(row._mapping) for row in db.execute(sa.text(query), {"account": self.account})]
                for query in (
                    "SELECT * FROM kk_order WHERE account = :account",
                    "SELECT * FROM kk_order_attempt WHERE account = :account"
                    " ORDER BY generation, attempt, intent_at",
                )
            ]
        self._engine(self.ledger_conn_id).dispose()
        return both[0], both[1]

    def look(self) -> list[tuple[str, int, str, int]]:
        """Return number, generation, state and attempts of each row, and leave all as it is."""
        import sqlalchemy as sa

        engine = self._engine(self.ledger_conn_id)
        query = (
            "SELECT custom_order_number, generation, state, attempt FROM kk_order WHERE account = :account"
        )
        if engine.dialect.name != "sqlite":
            rows: Sequence[Any] = []
            with suppress(sa.exc.ProgrammingError), engine.connect() as db:
                rows = db.execute(sa.text(query), {"account": self.account}).all()
            engine.dispose()  # a session left open would be waited for
            return [(row[0], row[1], row[2], row[3]) for row in rows]
        # Reading the file itself would roll back the changes of a killed process. The next worker does that.
        with tempfile.TemporaryDirectory() as folder:
            for suffix in ("", "-journal"):
                with suppress(FileNotFoundError):
                    shutil.copy(f"{engine.url.database}{suffix}", f"{folder}/copy.db{suffix}")
            with closing(sqlite3.connect(f"{folder}/copy.db")) as db, suppress(sqlite3.OperationalError):
                return db.execute(query, {"account": self.account}).fetchall()
        return []  # there is no table yet

    def summaries(self) -> list[dict[str, Any]]:
        """What the ledger keeps of each sync."""
        import sqlalchemy as sa

        with self._engine(self.ledger_conn_id).connect() as db:
            query = "SELECT summary FROM kk_sync_run WHERE account = :account"
            found = [json.loads(row.summary) for row in db.execute(sa.text(query), {"account": self.account})]
        self._engine(self.ledger_conn_id).dispose()
        return [summary for summary in found if "selected" in summary]

    # What is made cheap ----------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Run everything once in this process, so that children find it loaded and compiled."""
        for ledger in self.ledgers:
            self.begin([1, 2], {}, ledger=ledger, account="warm-up", list_lag_s=0.0)
            for task in (
                self.sync([1], run_id="warm", write_back="result"),
                self.sync([1, 2], run_id="warm again"),
                self.create(2, run_id="warm too"),
            ):
                if (told := task())["error"]:
                    raise RuntimeError(f"not even without kills: {told}")
            self.ledger()
            for engine in self._engines.values():
                engine.dispose()
        gc.collect()
        gc.freeze()

    def _connect(self, conn_id: str, values: dict[str, Any]) -> None:
        from airflow.providers.common.compat.sdk import Connection

        self._connections[conn_id] = Connection(conn_id=conn_id, **values)

    def _patch(self) -> None:
        from airflow.providers.common.compat.sdk import BaseHook
        from airflow.providers.postgres.hooks.postgres import PostgresHook
        from airflow.providers.sqlite.hooks.sqlite import SqliteHook

        self._connect("warehouse", {"conn_type": "sqlite", "host": str(self.warehouse_path)})
        if self.postgres_url:
            url = urlsplit(self.postgres_url)
            server = {"host": url.hostname, "port": url.port, "login": url.username, "schema": url.path[1:]}
            self._connect("postgres", {"conn_type": "postgres", **server})
            _let_servers_follow_virtual_time()
        self._connect("file", {"conn_type": "sqlite", "host": str(self.ledger_path)})
        BaseHook.get_connection = classmethod(lambda _cls, conn_id: self._connections[conn_id])
        for hook_class in (SqliteHook, PostgresHook):
            hook_class.get_sqlalchemy_engine = self._keeping(hook_class.get_sqlalchemy_engine)

    def _keeping(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def kept(hook: Any, engine_kwargs: Any = None) -> Any:
            conn_id = hook.get_conn_id()
            if conn_id not in self._engines:
                self._engines[conn_id] = real(hook, engine_kwargs=engine_kwargs)
            return self._engines[conn_id]

        return kept

    def _wait_for_sessions(self) -> None:
        """Until the server has found out that its clients are gone: a commit may still be under way."""
        import sqlalchemy as sa

        others = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND datname = current_database()"
        )
        # Within one transaction the server would always tell the same.
        with self._engine("postgres").connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            while db.execute(others).scalar_one():
                pause(0.001)
        self._engine("postgres").dispose()

    def _engine(self, conn_id: str) -> Any:
        return self._engines[conn_id]


def _let_servers_follow_virtual_time() -> None:
    from airflow_provider_kk.delivery.sql.database import Database

    Database.time_here = lambda _self: time.time()


def _told(attempt: shop.Try) -> dict[str, Any]:
    error = attempt.error
    summary = attempt.xcoms.get("return_value")
    return {
        "summary": summary if isinstance(summary, dict) else None,
        "ids": attempt.xcoms.get("kkOrderIds"),
        "error": type(error).__name__ if error else None,
        "message": str(error) if error else "",
    }
