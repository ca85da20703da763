"""How far an order has come, told from KK's words, which differ between the versions of its API.

Source: page "Query orders", v1 and v2. Every set of words is open: one that is not known tells nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_provider_kk.api.models import KKOrder


class _Stations(StrEnum):
    """Words in the order in which they are passed."""

    @property
    def rank(self) -> int:
        """A higher one never gives way to a lower one."""
        return list(type(self)).index(self)


class FulfilmentStatus(_Stations):
    """The stations of an order, in the order in which it passes them; `rank` compares two."""

    CREATED = "created"
    """KK lists it, and says nothing more that is understood."""
    WAITING_PAYMENT = "waiting_payment"
    PAID = "paid"
    PARTIALLY_SHIPPED = "partially_shipped"
    SHIPPED = "shipped"
    """Every parcel is on its way."""
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"
    """All of it; some lines alone do not change the status."""


class PackageStatus(_Stations):
    """The stations of a parcel, in order."""

    PREPARING = "preparing"
    SHIPPED = "shipped"
    DELIVERED = "delivered"


class Goal(StrEnum):
    """What can be waited for."""

    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    REFUNDED = "refunded"


# What v1 tells in one word, v2 tells in up to four. v2's waiting_to_ship does not say that it is paid.
_STATUS = {
    "waiting_payment": FulfilmentStatus.WAITING_PAYMENT,
    "processing": FulfilmentStatus.PAID,
    "waiting_to_ship": FulfilmentStatus.PAID,
    "waiting_toship": FulfilmentStatus.PAID,
    "partial_shipped": FulfilmentStatus.PARTIALLY_SHIPPED,
    "shipped": FulfilmentStatus.SHIPPED,
    "delivered": FulfilmentStatus.DELIVERED,
    "completed": FulfilmentStatus.DELIVERED,
    "cancel": FulfilmentStatus.CANCELLED,
    "refunded": FulfilmentStatus.REFUNDED,
}
_FINANCIAL = {"waiting": FulfilmentStatus.WAITING_PAYMENT, "paid": FulfilmentStatus.PAID}
_FULFILLMENT = {
    "partially_shipped": FulfilmentStatus.PARTIALLY_SHIPPED,
    "fully_shipped": FulfilmentStatus.SHIPPED,
    "completed": FulfilmentStatus.DELIVERED,
}
_REFUND = {"refund": FulfilmentStatus.REFUNDED, "refunded": FulfilmentStatus.REFUNDED}
_PACKAGE = {
    "preparing": PackageStatus.PREPARING,
    "shipped": PackageStatus.SHIPPED,
    "completed": PackageStatus.DELIVERED,
}


def status_in(
    status: str | None,
    financial_status: str | None,
    fulfillment_status: str | None,
    refund_status: str | None,
    *,
    is_paid: bool,
) -> FulfilmentStatus:
    """The furthest station that KK's four words tell of; `is_paid`: there is a date of payment."""
    text = (
        _STATUS.get(status or ""),
        _FINANCIAL.get(financial_status or ""),
        _FULFILLMENT.get(fulfillment_status or ""),
        _REFUND.get(refund_status or ""),
        FulfilmentStatus.PAID if is_paid else None,
    )
    return max((one for one in text if one), key=lambda one: one.rank, default=FulfilmentStatus.CREATED)


def status_of(order: KKOrder) -> FulfilmentStatus:
    """The furthest station that anything in a listed order tells of, its parcels included."""
    own = status_in(
        order.status,
        order.financial_status,
        order.fulfillment_status,
        order.refund_status,
        is_paid=order.paid_at is not None,
    )
    on_the_way = any(
        package_status(one.status) not in (None, PackageStatus.PREPARING) for one in order.fulfillments
    )
    return max(own, FulfilmentStatus.PARTIALLY_SHIPPED, key=lambda one: one.rank) if on_the_way else own


def package_status(status: str | None) -> PackageStatus | None:
    """The station that KK's word for a parcel tells of; None when it is not known."""
    return _PACKAGE.get(status or "")


def has_reached(order: KKOrder, goal: Goal) -> bool:
    """Whether an order is where it is waited for, or beyond."""
    status = status_of(order)
    if goal is Goal.REFUNDED:
        return status is FulfilmentStatus.REFUNDED
    return FulfilmentStatus(goal.value).rank <= status.rank <= FulfilmentStatus.DELIVERED.rank


def why_never(order: KKOrder, goal: Goal) -> str | None:
    """Why an order that has not reached `goal` will not, as far as KK's words tell; None: it still may."""
    status = status_of(order)
    if goal is Goal.REFUNDED:
        return _why_never_refunded(order, status)
    if status is FulfilmentStatus.CANCELLED:
        return "it is cancelled"
    if status is FulfilmentStatus.REFUNDED:
        return "it is refunded"
    if order.status == "abnormal_order":
        return "KK calls it abnormal: somebody has to look at it there"
    return None


def _why_never_refunded(order: KKOrder, status: FulfilmentStatus) -> str | None:
    if "refunding" in (order.status, order.refund_status):
        return None
    if order.status == "refund_fail":
        return "KK has refused the refund"
    if status is FulfilmentStatus.CANCELLED and order.paid_at is None and order.financial_status != "paid":
        return "it is cancelled and was never paid"
    if FulfilmentStatus.SHIPPED.rank <= status.rank <= FulfilmentStatus.DELIVERED.rank:
        return "it is shipped, and KK refunds only before"
    return None


@dataclass(frozen=True)
class Outlook:
    """How several orders stand that are waited for together.

    `is_reached`: the wait is over. `why_never`: why it is in vain, None as long as it is not. `orders`: what
    `plain` makes of them. `missing`: the ids that KK does not list.
    """

    is_reached: bool
    why_never: str | None
    orders: list[dict[str, Any]]
    missing: list[str]


def outlook(
    kk_order_ids: Sequence[str], listed: Iterable[KKOrder], goal: Goal, *, any_split: bool = False
) -> Outlook:
    """How the orders with these ids stand: all have to reach `goal`, or `any_split` any one of them.

    One that is not listed is waited for: KK's lists run behind.
    """
    orders = {order.id: order for order in listed if order.id in kk_order_ids}
    reached = [kk_id for kk_id, order in orders.items() if has_reached(order, goal)]
    reasons = {
        kk_id: reason
        for kk_id, order in orders.items()
        if kk_id not in reached and (reason := why_never(order, goal))
    }
    is_reached = bool(reached) if any_split else len(reached) == len(kk_order_ids)
    is_in_vain = not is_reached and len(reasons) >= (len(kk_order_ids) if any_split else 1)
    text = "; ".join(f"order {kk_id} will not be {goal}: {reason}" for kk_id, reason in reasons.items())
    return Outlook(
        is_reached=is_reached,
        why_never=text if is_in_vain else None,
        orders=[plain(order) for order in orders.values()],
        missing=[kk_id for kk_id in kk_order_ids if kk_id not in orders],
    )


def not_listed(kk_order_ids: Sequence[str]) -> str:
    """Return that KK does not list these orders, and what to check."""
    return (
        f"KK does not list {', '.join(kk_order_ids)}. KK may list a new order some minutes late. If it stays "
        "so, check that this is KK's id of the order, not your order number, and that the connection's host "
        "and token are those of the store that has it"
    )


def plain(order: KKOrder) -> dict[str, Any]:
    """What a DAG wants to know of an order on its way, as plain data without anything personal."""
    names = ("id", "status", "carrier", "tracking_code", "tracking_url")
    return {
        "kk_order_id": order.id,
        "custom_order_number": order.custom_order_number,
        "status": status_of(order).value,
        "packages": [{name: getattr(package, name) for name in names} for package in order.fulfillments],
    }
