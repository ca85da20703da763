"""An order's fulfilment status by KK's statuses, which differ between the versions of its API.

Source: page "Query orders", v1 and v2. Every set of statuses is open: an unknown one counts for nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_provider_kk.api.models import KKOrder


class _RankedStatus(StrEnum):
    """Statuses in the order in which they are passed."""

    @property
    def rank(self) -> int:
        """The place in that order; a status never falls back to a lower one."""
        return list(type(self)).index(self)


class FulfilmentStatus(_RankedStatus):
    """The statuses of an order, in the order in which it passes them; `rank` compares two."""

    CREATED = "created"
    """KK lists it without a known status."""
    WAITING_PAYMENT = "waiting_payment"
    PAID = "paid"
    PARTIALLY_SHIPPED = "partially_shipped"
    SHIPPED = "shipped"
    """Every parcel is shipped."""
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"
    """The whole order; a refund of some lines does not change the status."""


class PackageStatus(_RankedStatus):
    """The statuses of a parcel, in order."""

    PREPARING = "preparing"
    SHIPPED = "shipped"
    DELIVERED = "delivered"


# v1 has one status, v2 up to four. v2's waiting_to_ship does not mean that the order is paid.
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
_OF_ORDERS = (_STATUS, _FINANCIAL, _FULFILLMENT, _REFUND)
_PACKAGE = {
    "preparing": PackageStatus.PREPARING,
    "shipped": PackageStatus.SHIPPED,
    "completed": PackageStatus.DELIVERED,
}


def status_in(*statuses: str | None, is_paid: bool) -> FulfilmentStatus:
    """Return the highest of an order's statuses at KK: its own, its financial, fulfilment and refund status.

    `is_paid`: there is a date of payment.
    """
    found = [known.get(status or "") for known, status in zip(_OF_ORDERS, statuses, strict=True)]
    found.append(FulfilmentStatus.PAID if is_paid else FulfilmentStatus.CREATED)
    return max(filter(None, found), key=lambda one: one.rank)


def status_of(order: KKOrder) -> FulfilmentStatus:
    """Return the highest status of anything in a listed order, its parcels included."""
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
    """Return the status of a parcel by KK's; None when that is unknown."""
    return _PACKAGE.get(status or "")


def has_reached(order: KKOrder, goal: FulfilmentStatus) -> bool:
    """Return whether an order has reached the goal, or passed it."""
    status = status_of(order)
    if goal is FulfilmentStatus.REFUNDED:
        return status is FulfilmentStatus.REFUNDED
    return goal.rank <= status.rank <= FulfilmentStatus.DELIVERED.rank


def why_never(order: KKOrder, goal: FulfilmentStatus) -> str | None:
    """Return why an order that has not reached `goal` never will; None if it still may."""
    status = status_of(order)
    if goal is FulfilmentStatus.REFUNDED:
        return _why_never_refunded(order, status)
    if status is FulfilmentStatus.CANCELLED:
        return "it is cancelled"
    if status is FulfilmentStatus.REFUNDED:
        return "it is refunded"
    if order.status == "abnormal_order":
        return "KK reports it as abnormal. Check it on KK's site"
    return None


def _why_never_refunded(order: KKOrder, status: FulfilmentStatus) -> str | None:
    if "refunding" in (order.status, order.refund_status):
        return None
    if order.status == "refund_fail":
        return "KK rejected the refund"
    if status is FulfilmentStatus.CANCELLED and order.paid_at is None and order.financial_status != "paid":
        return "it is cancelled and was never paid"
    if FulfilmentStatus.SHIPPED.rank <= status.rank <= FulfilmentStatus.DELIVERED.rank:
        return "it is shipped, and KK refunds only unshipped orders"
    return None


@dataclass(frozen=True)
class Outlook:
    """The state of a wait for several orders.

    `is_reached`: the wait is over. `why_never`: why it is in vain, else None. `orders`: what `plain` returns
    of each. `missing`: the ids that KK does not list.
    """

    is_reached: bool
    why_never: str | None
    orders: list[dict[str, Any]]
    missing: list[str]


def outlook(
    kk_order_ids: Sequence[str], listed: Iterable[KKOrder], goal: FulfilmentStatus, *, any_split: bool = False
) -> Outlook:
    """Return how far the wait for these orders is: all have to reach `goal`, with `any_split` one of them.

    The wait goes on for one that is not listed, since KK lists orders late.
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
        "missing, check that this is KK's id and not your order number, and that the connection's host and "
        "token belong to the store of the order"
    )


def plain(order: KKOrder) -> dict[str, Any]:
    """Return the status and parcels of an order as plain data without personal data."""
    names = ("id", "status", "carrier", "tracking_code", "tracking_url")
    return {
        "kk_order_id": order.id,
        "custom_order_number": order.custom_order_number,
        "status": status_of(order).value,
        "packages": [{name: getattr(package, name) for name in names} for package in order.fulfillments],
    }
