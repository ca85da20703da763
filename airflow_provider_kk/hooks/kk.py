"""KKHook: call KK's API with an Airflow connection of type `kk`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_kk.hooks.connection import (
    ConnectionSettings,
    InvalidConnectionError,
    diagnose,
    parse_connection,
)
from airflow_provider_kk.provider_info import CONN_FIELDS, HIDDEN_FIELDS, PLACEHOLDERS, RELABELING

# common-compat has mask_secret only since 1.22: the constraints of Airflow up to 3.3.2 pin older ones.
try:
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 2.11
    from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[import-not-found,no-redef]

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import (
        Channel,
        KKOrder,
        KKProduct,
        Order,
        OrderItem,
        Refund,
        Stock,
        Warehouse,
    )
    from airflow_provider_kk.api.throttle import Throttle


def settings_of(connection: Any) -> ConnectionSettings:
    """Read the settings of a connection, and hide its token in logs.

    :raises InvalidConnectionError: names all that is wrong with the connection.
    """
    settings = parse_connection(connection)
    # Airflow masks the password as it is stored, which may have a line break at its end.
    mask_secret(settings.token)
    return settings


class KKHook(BaseHook):
    """Calls KK with the settings of an Airflow connection, within the connection's rate limit.

    The limit is kept within this process; operators share it between workers through the ledger. Every call
    raises a `KKError` of `airflow_provider_kk.api.errors`, whose `outcome` is what is proven. Calls that
    change something are KK's bare calls: only operators ensure that an order is created once.
    """

    conn_name_attr = "kk_conn_id"
    default_conn_name = "kk_default"
    conn_type = "kk"
    hook_name = "KK"

    def __init__(self, kk_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.kk_conn_id = kk_conn_id

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The connection's settings. Raises InvalidConnectionError, which names all that is wrong with it."""
        return settings_of(self.get_connection(self.kk_conn_id))

    def client(self, throttle: Throttle) -> KKClient:
        """Return a new client that asks `throttle` before each request. Close it when done."""
        from airflow_provider_kk.api.client import KKClient

        settings = self.settings
        return KKClient(
            settings.base_url,
            settings.token,
            api_version=settings.api_version,
            address_key=settings.address_key,
            sale_platform=settings.sale_platform,
            timeout_s=settings.timeout_s,
            throttle=throttle,
            use_env_proxies=settings.use_env_proxies,
        )

    def get_conn(self) -> KKClient:
        """Return the client of this hook, the same at every call and safe for many threads."""
        return self._client

    @cached_property
    def _client(self) -> KKClient:
        return self.client(self.settings.local_bucket())

    def test_connection(self) -> tuple[bool, str]:
        """List orders, and return whether that works, and in one sentence what does or what to fix."""
        try:
            settings = self.settings
        except InvalidConnectionError as error:
            return False, str(error)
        return diagnose(settings, self.get_conn())

    def create_order(self, order: Order | Mapping[str, Any] | str) -> list[str]:
        """Create an order and return its kkOrderIds. The same call again makes a second order."""
        return self.get_conn().create_order(order)

    def iter_orders(
        self,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        ids: Iterable[str] | None = None,
        status: str | Iterable[str] | None = None,
    ) -> Iterator[KKOrder]:
        """Yield all orders of a window of aware times, each once. KK may list an order minutes late."""
        return self.get_conn().iter_orders(
            created_from=created_from,
            created_to=created_to,
            updated_from=updated_from,
            updated_to=updated_to,
            ids=ids,
            status=status,
        )

    def get_order(self, kk_order_id: str) -> KKOrder | None:
        """Return one order by KK's id, or None when KK lists no such order."""
        return self.get_conn().get_order(kk_order_id)

    def get_orders(self, kk_order_ids: Iterable[str]) -> list[KKOrder]:
        """Return the orders with these ids, in this order; those that KK does not list are left out."""
        return self.get_conn().get_orders(kk_order_ids)

    def refund_order(
        self,
        kk_order_id: str,
        remark: str,
        *,
        lines: Sequence[Mapping[str, Any]] | None = None,
        refund_reason: str = "Other",
    ) -> str:
        """Ask for a refund of an order, or of some `lines`; its number. The same call again may ask twice."""
        return self.get_conn().refund_order(kk_order_id, remark, lines=lines, refund_reason=refund_reason)

    def get_refunds(self, kk_order_id: str) -> list[Refund]:
        """Return the refunds of one order, and what became of them."""
        return self.get_conn().get_refunds(kk_order_id)

    def get_channels(
        self,
        items: Sequence[OrderItem | Mapping[str, Any]] | str,
        country: str,
        *,
        split: bool = False,
    ) -> list[Channel]:
        """Return ways to ship these goods to a country, with freight; `split`: of an order that KK splits."""
        return self.get_conn().get_channels(items, country, split=split)

    def get_balance(self) -> Any:
        """Return the account's balance, as KK sends it."""
        return self.get_conn().get_balance()

    def iter_stock(
        self,
        skus: Iterable[str] | None = None,
        *,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        warehouse_code: str | None = None,
    ) -> Iterator[Stock]:
        """Yield stock by warehouse, of these SKUs or of all that changed in a window of aware times."""
        return self.get_conn().iter_stock(
            skus, updated_from=updated_from, updated_to=updated_to, warehouse_code=warehouse_code
        )

    def iter_products(
        self,
        skus: Iterable[str] | None = None,
        *,
        spus: Iterable[str] | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        category_id: str | None = None,
    ) -> Iterator[KKProduct]:
        """Yield products with prices and SKUs: by SKUs, by SPUs, by a window of changes or by category."""
        return self.get_conn().iter_products(
            skus, spus=spus, updated_from=updated_from, updated_to=updated_to, category_id=category_id
        )

    def get_warehouses(self) -> list[Warehouse]:
        """Return KK's warehouses."""
        return self.get_conn().get_warehouses()

    def get_categories(self) -> Any:
        """Return KK's tree of categories, as KK sends it."""
        return self.get_conn().get_categories()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the standard fields of the connection form, for Airflow before 3.2."""
        return {"hidden_fields": HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields of the extras, for Airflow before 3.2; later ones use `provider_info`."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import BooleanField, StringField

        def widget(name: str) -> Any:
            label, description = CONN_FIELDS[name]["label"], CONN_FIELDS[name]["description"]
            if name == "use_env_proxies":
                return BooleanField(label, description=description)
            # Text for numbers too: an IntegerField cannot stay empty.
            return StringField(label, description=description, widget=BS3TextFieldWidget())

        return {name: widget(name) for name in CONN_FIELDS}
