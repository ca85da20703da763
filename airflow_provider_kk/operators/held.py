"""Held orders in a DAG: what waits for a human, and the human's word on it. For `@task` functions.

The rules are those of `kk ledger resolve`; `example_dags/kk_held_orders.py` asks by Airflow's own operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.operators.base import translate_errors

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from airflow_provider_kk.hooks.resolving import Resolution


def held_orders(
    *, kk_conn_id: str = KKHook.default_conn_name, ledger_conn_id: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return the account's held orders, those that wait longest first, as plain data with no customer in it.

    Each has `custom_order_number`, `generation`, `version` (another one after each change in the ledger),
    `goods` (SKU to quantity), `country`, `kk_order_ids`, `why` it is held, and `since` when (UTC).

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's.
    :param limit: at most so many.
    :raises AirflowFailException: there is no ledger at that place, or a connection is wrong.
    :raises AirflowException: the ledger's database cannot be used.
    """
    from airflow_provider_kk.delivery.states import State
    from airflow_provider_kk.hooks.resolving import newest

    with translate_errors(), _ledger(KKHook(kk_conn_id), ledger_conn_id) as ledger:
        held = sorted(newest(ledger.entries(states=[State.HELD]), ledger), key=lambda one: one.updated_at)
        return [_plain(entry) for entry in held[:limit]]


def _plain(entry: Record) -> dict[str, Any]:
    from airflow_provider_kk.delivery.log import utc

    return {
        "custom_order_number": entry.key,
        "generation": entry.generation,
        "version": entry.version,
        "goods": dict(entry.goods),
        "country": entry.country,
        "kk_order_ids": list(entry.kk_order_ids),
        "why": entry.message,
        "since": utc(entry.updated_at),
    }


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
    """Resolve an order manually, as `kk ledger resolve` does, and return what follows from it.

    :param resolution: `created`: KK has it, under `kk_order_ids`. `never_created`: KK never made it, and the
        next sync that selects it sends it. `order_again`: its number is ordered once more, beside what KK has
        of it; when it is not over, it is first resolved as created under `kk_order_ids`.
    :param who: who resolves it; kept in the ledger, so no customer's name.
    :param why: the reason; likewise.
    :param kk_order_ids: a list, or text with commas; KK must list each of them under this number.
    :param accept_other_goods: accept these ids though they hold other goods than were ordered.
    :param generation: the generation to resolve, as `held_orders` returned it. With it, a retry orders
        nothing twice, and no other generation is resolved.
    :param version: the version to resolve, likewise. With it, the resolution is rejected when the order has
        changed since, since a colleague or a sync was faster.
    :raises AirflowFailException: the resolution is rejected, with the reason.
    :raises AirflowException: KK or the ledger's database cannot be reached; a retry helps.
    """
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.hooks.resolving import (
        Resolution,
        ResolutionRejected,
        ResolutionUnavailable,
        split_ids,
    )

    ids = split_ids(kk_order_ids) if isinstance(kk_order_ids, str) else list(kk_order_ids)
    hook = KKHook(kk_conn_id)
    with translate_errors(), _ledger(hook, ledger_conn_id) as ledger:
        try:
            said = Resolution(who, why)
            resolver = _Resolver(custom_order_number, said, ids, accept_other_goods, hook, ledger)
            return resolver.resolve(resolution, generation, version)
        except (KKError, ResolutionUnavailable) as error:
            raise AirflowException(f"{custom_order_number}: KK cannot be asked: {error}") from error
        except ResolutionRejected as error:
            raise AirflowFailException(f"{custom_order_number}: {error}") from error


@dataclass
class _Resolver:
    number: str
    resolution: Resolution
    ids: Sequence[str]
    accept_other_goods: bool
    hook: KKHook
    ledger: SqlLedger

    def resolve(self, resolution: str, generation: int | None, version: str | None) -> str:
        from airflow_provider_kk.hooks.resolving import ResolutionRejected

        if not self.resolution.who.strip() or not self.resolution.why.strip():
            raise ResolutionRejected("a word needs whose it is, and why: the next one on call reads it")
        actions = {
            "created": self._created,
            "never_created": self._never_created,
            "order_again": self._order_again,
        }
        if resolution not in actions:
            raise ResolutionRejected(f"{resolution!r} is none of {', '.join(actions)}")
        entry = self._entry()
        if resolution == "order_again" and generation == entry.generation - 1 and self._is_resolved_so(entry):
            return "ordered once more by an earlier try"
        if generation not in (None, entry.generation):
            raise ResolutionRejected(f"it was ordered again meanwhile, as generation {entry.generation}")
        if version not in (None, entry.version) and not self._is_resolved_so(entry):
            raise ResolutionRejected(
                f"it has moved on since this was asked, and is {entry.state.value.replace('_', ' ')} now; "
                f"see `kk ledger show {entry.key}`"
            )
        return actions[resolution](entry)

    def _entry(self) -> Record:
        from airflow_provider_kk.hooks.resolving import ResolutionRejected

        if entry := self.ledger.look_up([self.number]).get(self.number):
            return entry
        raise ResolutionRejected(f"it is not in the ledger of {self.ledger.account} at {self.ledger.host}")

    def _is_resolved_so(self, entry: Record) -> bool:
        from airflow_provider_kk.delivery.ledger import as_kept

        return entry.resolved_by == as_kept(self.resolution.who, self.resolution.why)

    def _created(self, entry: Record) -> str:
        from airflow_provider_kk.hooks import resolving as rules

        if entry.state.value == "created" and set(entry.kk_order_ids) == set(self.ids):
            return "created, as was said before"
        rules.require_open(entry, self.ledger)
        orders = rules.orders_at_kk(self.ids, entry, self.hook, self.ledger)
        held = rules.other_goods(orders, entry)
        if held is not None and not self.accept_other_goods:
            raise rules.ResolutionRejected(
                f"{', '.join(self.ids)} hold {dict(held)}, and {dict(entry.goods)} was ordered"
            )
        return rules.resolve_created(entry, self.ids, self.ledger, self.resolution)

    def _never_created(self, entry: Record) -> str:
        from airflow_provider_kk.hooks import resolving as rules

        if entry.state.value == "not_sent":
            return "never created, as was said before"
        seen = rules.orders_seen_at_kk([entry], self.hook, self.ledger)
        return rules.resolve_never_created(entry, seen[entry.key], self.ledger, self.resolution)

    def _order_again(self, entry: Record) -> str:
        from airflow_provider_kk.delivery.states import CLOSED
        from airflow_provider_kk.hooks import resolving as rules

        if entry.state not in CLOSED:
            self._created(entry)
            entry = self._entry()
        at_kk = rules.all_at_kk_of([entry], self.hook, self.ledger)
        return rules.order_again(entry, at_kk[entry.key], self.ledger, self.resolution)


@contextmanager
def _ledger(hook: KKHook, ledger_conn_id: str | None) -> Iterator[SqlLedger]:
    from airflow_provider_kk.hooks.ledger_connection import open_ledger, resolve_ledger_conn_id

    ledger_conn_id = resolve_ledger_conn_id(hook, ledger_conn_id)
    if ledger_conn_id is None:
        raise AirflowFailException(
            "Nothing is held without a ledger: set ledger_conn_id, here or in the extra of "
            f"{hook.kk_conn_id!r}"
        )
    with closing(open_ledger(hook, ledger_conn_id, threads=1)) as ledger:
        yield ledger
