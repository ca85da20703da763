"""List and resolve held orders in a DAG, from `@task` functions.

The rules are those of `kk ledger resolve`. `example_dags/kk_held_orders.py` asks a person for the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.operators.base import translate_errors

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger


def held_orders(
    *, kk_conn_id: str = KKHook.default_conn_name, ledger_conn_id: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return the account's held orders, the oldest first, without personal data.

    Each has `custom_order_number`, `generation`, `version` (it changes with each change in the ledger),
    `goods` (SKU to quantity), `country`, `kk_order_ids`, `why` it is held, and `since` when (UTC).

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's.
    :param limit: the most orders to return.
    :raises AirflowFailException: there is no ledger, or a connection is wrong.
    :raises AirflowException: the ledger's database cannot be used.
    """
    from airflow_provider_kk.delivery.log import utc
    from airflow_provider_kk.delivery.states import State
    from airflow_provider_kk.sync.resolution import newest

    with translate_errors(), _ledger(KKHook(kk_conn_id), ledger_conn_id) as ledger:
        held = sorted(newest(ledger.entries(states=[State.HELD]), ledger), key=lambda one: one.updated_at)
        return [
            {
                "custom_order_number": entry.key,
                "generation": entry.generation,
                "version": entry.version,
                "goods": dict(entry.content.goods),
                "country": entry.content.country,
                "kk_order_ids": list(entry.kk_order_ids),
                "why": entry.message,
                "since": utc(entry.updated_at),
            }
            for entry in held[:limit]
        ]


def resolve_order(
    custom_order_number: str,
    resolution: Literal["created", "never_created", "order_again"],
    *,
    who: str,
    why: str,
    kk_order_ids: str | Sequence[str] = (),
    accept_other_goods: bool = False,
    generation: int | None = None,
    version: str | None = None,
    kk_conn_id: str = KKHook.default_conn_name,
    ledger_conn_id: str | None = None,
) -> str:
    """Resolve an order manually, by the rules of `kk ledger resolve`, and return what happens next.

    :param custom_order_number: the order to resolve.
    :param resolution: `created`: KK has the order, under `kk_order_ids`. `never_created`: KK never created
        it, and the next sync that selects it sends it. `order_again`: the next sync sends the number once
        more, in addition to KK's orders of it. An order that is still open is first resolved as created under
        `kk_order_ids`.
    :param who: the person who decides. The ledger keeps the name, so do not use a customer's.
    :param why: the reason. The ledger keeps it, too.
    :param kk_order_ids: a list, or text with commas. KK must list each of them under this number.
    :param accept_other_goods: accept ids whose goods differ from the ordered goods.
    :param generation: the generation that `held_orders` returned. With it, a retry orders nothing twice, and
        the resolution of a newer generation is rejected.
    :param version: the version that `held_orders` returned. With it, the resolution is rejected if a
        colleague or a sync changed the order meanwhile.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's.
    :raises AirflowFailException: the resolution is rejected; the text has the reason.
    :raises AirflowException: KK or the ledger's database does not answer; a retry helps.
    """
    from airflow_provider_kk.delivery.resolution import ResolutionRejected
    from airflow_provider_kk.sync.resolution import ResolvedBy, resolve, split_ids
    from airflow_provider_kk.sync.resolution_checks import ResolutionUnavailable

    ids = split_ids(kk_order_ids) if isinstance(kk_order_ids, str) else list(kk_order_ids)
    hook = KKHook(kk_conn_id)
    with translate_errors(), _ledger(hook, ledger_conn_id) as ledger:
        try:
            return resolve(
                custom_order_number,
                resolution,
                ResolvedBy(who, why),
                hook,
                ledger,
                ids=ids,
                accept_other_goods=accept_other_goods,
                generation=generation,
                version=version,
            )
        except ResolutionUnavailable as error:
            raise AirflowException(f"Order {custom_order_number} is not resolved: {error}") from error
        except ResolutionRejected as error:
            raise AirflowFailException(f"Order {custom_order_number} is not resolved: {error}") from error


@contextmanager
def _ledger(hook: KKHook, ledger_conn_id: str | None) -> Iterator[SqlLedger]:
    from airflow_provider_kk.hooks.ledger_connection import open_ledger, resolve_ledger_conn_id

    ledger_conn_id = resolve_ledger_conn_id(hook, ledger_conn_id)
    if ledger_conn_id is None:
        raise AirflowFailException(
            "Held orders are in the ledger, and no ledger is set. Set ledger_conn_id in this call or in the "
            f"extra of connection {hook.kk_conn_id!r}"
        )
    with closing(open_ledger(hook, ledger_conn_id, threads=1)) as ledger:
        yield ledger
