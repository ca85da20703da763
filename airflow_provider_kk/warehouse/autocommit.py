"""Turn autocommit off on any warehouse's connection, since each hook opens it in a mode of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook


def leave_autocommit(hook: DbApiHook, connection: Any) -> bool:
    """Turn autocommit off, which is on by default with JDBC and where a connection asks for it.

    Returns whether changes now wait for a commit. They do not on a warehouse that has no transactions.
    """
    if not hook.get_autocommit(connection):
        return True
    with contextlib.suppress(Exception):  # whatever the driver raises
        hook.set_autocommit(connection, False)
    return not hook.get_autocommit(connection)
