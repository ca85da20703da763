"""What the sandbox shows of itself."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_kk.sandbox.kk import KK
from airflow_provider_kk.sandbox.store import Row, goods


def counts(kk: KK) -> dict[str, Any]:
    """Figures that promises are checked by.

    `creates`: create calls that arrived, whatever became of them. `commits`: those that made orders.
    `orders` and `numbers`: what is at KK now. `waiting_late`: calls that will be committed later. `requests`,
    `GET`, `POST` and the outcomes of `log.Entry`: since the start or the last reset. `faults`: how often each
    kind struck.
    """
    names = ("requests", "GET", "POST", "creates", "commits", "created", "ok", "refused", "unauthorized")
    noted = dict.fromkeys((*names, "rate_limited", "struck", "late"), 0) | dict(kk.log.counts)
    return {
        **noted,
        "orders": kk.store.value("SELECT count(*) FROM kk_order"),
        "numbers": kk.store.value("SELECT count(DISTINCT number) FROM kk_order"),
        "refunds": kk.store.value("SELECT count(*) FROM refund"),
        "waiting_late": kk.store.value("SELECT count(*) FROM late_call"),
        "faults": dict(kk.armory.hits),
    }


def orders(kk: KK, number: str | None = None, last: int | None = None) -> list[dict[str, Any]]:
    """What is at KK, listed or not, in the order of creation; with `last`, the newest first."""
    where, values = ("WHERE number = ?", [number]) if number is not None else ("", [])
    order = "ORDER BY id" if last is None else f"ORDER BY id DESC LIMIT {int(last)}"
    return [_shown(row) for row in kk.store.rows(f"SELECT * FROM kk_order {where} {order}", values)]  # noqa: S608 - constant names


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "number": row["number"],
        "call": row["call"],
        "state": row["state"],
        "warehouse": row["warehouse"],
        "goods": goods(json.loads(row["items"])),
        "address": json.loads(row["address"]),
        "remark": row["remark"],
        "sale_platform": row["sale_platform"],
        "channel_type": row["channel_type"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
