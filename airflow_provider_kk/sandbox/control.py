"""A client of the control API, for tests and scripts. It needs only the standard library."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

from airflow_provider_kk.sandbox.faults import QUICK, mixed_kinds


class SandboxControlError(Exception):
    """The sandbox rejects a control call; the text has the reason."""


class SandboxControl:
    """Controls the sandbox at a URL, in this process or another.

    Raises:
        SandboxControlError: from every method, for a name or value that the sandbox does not know.
        OSError: the sandbox does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._host = urlsplit(url).netloc

    def arm(self, kind: str | list[str], **how: Any) -> int:
        """Inject a fault of `faults.FAULTS` into requests; of several names, one is drawn for each request.

        Args:
            kind: one or more names.
            how: the requests, and options of the kind; see `faults.Armory.arm`.

        Returns:
            An id for `disarm`.
        """
        return int(self._post("arm", names=kind, **how))

    def random_faults(self, probability: float, seed: int = 0, **options: Any) -> int:
        """Inject into each POST, with a probability, any fault from which a correct caller recovers.

        These are faults of the network. Rejections, a wrong token, and faults that make a second or half an
        order are left out. Stalls and drips are short. A late commit comes after `seconds` of the sandbox's
        clock (0.2), which must stay below the caller's settle window.
        """
        return self.arm(mixed_kinds(), probability=probability, seed=seed, **{**QUICK, **options})

    def disarm(self, arm_id: int | None = None) -> None:
        """Disarm one fault, or all."""
        self._post("disarm", id=arm_id)

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change settings, see `settings.Settings`, and return all of them."""
        return dict(self._post("settings", **settings))

    def advance(self, seconds: float) -> float:
        """Move the sandbox's clock, and return its new time in epoch seconds."""
        return float(self._post("advance", seconds=seconds))

    def now(self) -> float:
        """Return the time of the sandbox's clock in epoch seconds."""
        return float(self._get("now"))

    def orders(self, number: str | None = None) -> list[dict[str, Any]]:
        """Return KK's orders, listed or not: id, number, call, state, warehouse, goods, address, ...

        The orders of one split have the same `call`.
        """
        path = "orders" if number is None else f"orders?number={quote(number, safe='')}"
        return list(self._get(path))

    def duplicates(self) -> list[str]:
        """Return the order numbers for which more than one call made orders."""
        return list(self._get("duplicates"))

    def requests(self) -> list[dict[str, Any]]:
        """Return the last 50,000 requests: at, method, path, number, outcome, status, fault, kk_order_ids."""
        return list(self._get("requests"))

    def counts(self) -> dict[str, Any]:
        """Return counts, see `app.counts`: creates, commits, orders, numbers, requests, ..."""
        return dict(self._get("counts"))

    def catalogue(self) -> list[dict[str, Any]]:
        """Return every SKU: sku, country (its warehouse), price in cents, stock, ..."""
        return list(self._get("catalogue"))

    def place(
        self,
        goods: dict[str, int],
        *,
        number: str | None = None,
        age_s: float = 0.0,
        remark: str | None = None,
        **address: str,
    ) -> list[str]:
        """Create an order without limits and faults, as by hand on KK's site, and return its ids."""
        return list(
            self._post("place", goods=goods, number=number, age_s=age_s, remark=remark, address=address)
        )

    def move(self, kk_order_id: str, state: str) -> None:
        """Move an order to one of `life.MOVES` at once; from there the timetable continues.

        They are paid, packed, partially_shipped, shipped, delivered, abnormal and cancel; the timetable is in
        `settings.Settings`.
        """
        self._post("move", id=kk_order_id, state=state)

    def set_balance(self, dollars: float) -> None:
        """Change the account's balance."""
        self._post("balance", dollars=dollars)

    def set_stock(self, sku: str, qty: int) -> None:
        """Make a SKU sold out (0) or available."""
        self._post("stock", sku=sku, qty=qty)

    def set_sku_details(self, sku: str, **fields: Any) -> None:
        """Set other values of a SKU in product queries, by KK's names: `price="N/A"`, `skuStatus=3`.

        Each call replaces the one before; without fields, the catalogue's values are listed again. The price
        of an order and the check of its goods do not change.
        """
        self._post("sku-details", sku=sku, fields=fields)

    def reset(self) -> None:
        """Delete orders, faults and the log; settings and the clock stay."""
        self._post("reset")

    def _get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def _post(self, path: str, /, **body: Any) -> Any:
        return self._call("POST", path, json.dumps(body))

    def _call(self, method: str, path: str, body: str | None) -> Any:
        connection = HTTPConnection(self._host, timeout=30)
        try:
            headers = {"X-Sandbox": "1", "Content-Type": "application/json", "Connection": "close"}
            connection.request(method, f"/__sandbox__/{path}", body, headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise SandboxControlError(content["error"])
        return content
