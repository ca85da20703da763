"""Operator that reads the shipping costs of goods from KK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseHook

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.operators.base import KKOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.api.models import Channel, OrderItem


class QuoteShippingOperator(KKOperator):
    """Reads KK's offers to ship goods to a country, with their costs. It orders nothing.

    Returns KK's offers in KK's order, `[{"channel_code", "channel_name", "channel_type", "estimated_freight",
    "currency_code", "delivery_time"}]`. The freight is decimal text, the time is KK's text ("6~10 Business
    Days"). A field that KK leaves out is None. Sources: KK's pages "channel" and "automationSplit", v2.

    :param items: the lines: `[{"sku": ..., "quantity": ...}]` or the same as JSON text.
    :param country: the destination: ISO 3166 alpha-2, such as FR.
    :param split: freight by channel type for an order that KK splits by warehouse, instead of one parcel.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. With a ledger, all
        workers share one rate limit; without one, the task keeps its own.
    :raises AirflowFailException: goods or country are invalid, or KK rejects them; a retry does not help.
    :raises AirflowException: KK cannot be read; a retry helps.
    """

    template_fields: Sequence[str] = ("items", "country", "kk_conn_id", "ledger_conn_id")
    template_fields_renderers = {"items": "json"}  # noqa: RUF012
    ui_color = "#e3e6f2"

    def __init__(
        self,
        *,
        items: Sequence[OrderItem | Mapping[str, Any]] | str | XComArg,
        country: str | XComArg,
        split: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Airflow renders XComArgs to values before execute.
        self.items: Any = items
        self.country: Any = country
        self.split = split

    def _execute(self, context: Context) -> list[dict[str, str | None]]:
        from airflow_provider_kk.api.errors import InvalidOrderError, KKError, KKRejectedError
        from airflow_provider_kk.hooks.ledger_connection import reading

        hook = KKHook(self.kk_conn_id)
        ledger_conn_id = self._ledger_conn_id(hook)
        ledger = BaseHook.get_connection(ledger_conn_id) if ledger_conn_id else None
        try:
            with reading(hook, ledger) as (client, _ledger):
                offers = client.get_channels(self.items, self.country, split=self.split)
        except InvalidOrderError as error:
            raise AirflowFailException(f"No quote: {'; '.join(map(str, error.faults))}") from None
        except KKRejectedError as error:
            raise AirflowFailException(f"No quote: {error}") from error
        except KKError as error:
            raise AirflowException(f"No quote, because KK cannot be read: {error}") from error
        for offer in offers:
            if offer.odd_fields:
                self.log.warning(
                    "KK's offer %s has fields that cannot be parsed: %s. They are None in the result",
                    offer.channel_type,
                    ", ".join(offer.odd_fields),
                )
        self.log.info("KK has %d shipping offers to %s", len(offers), self.country)
        return [_plain(offer) for offer in offers]


def _plain(offer: Channel) -> dict[str, str | None]:
    freight = offer.estimated_freight
    return {
        **offer.model_dump(exclude={"odd_fields", "estimated_freight"}),
        "estimated_freight": None if freight is None else format(freight, "f"),
    }
