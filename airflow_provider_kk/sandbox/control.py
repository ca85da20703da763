"""A client of the control API, for tests and scripts. Needs nothing but the standard library."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

from airflow_provider_kk.sandbox.faults import FAULTS, QUICK, mixed_kinds


class SandboxControlError(Exception):
    """The sandbox did not do what it was told; the text says why."""


class SandboxControl:
    """Steers the sandbox at a URL, in this process or another.

    Raises:
        SandboxControlError: from every method, for a name or value that the sandbox does not know.
        OSError: the sandbox does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._host = urlsplit(url).netloc

    def arm(
        self,
        kind: str | list[str],
        *,
        times: int | None = None,
        probability: float | None = None,
        method: str | None = "POST",
        path: str | None = None,
        number: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> int:
        """Let requests suffer a fault of `faults.FAULTS` (of several: one drawn at each hit).

        Args:
            kind: one or more names.
            times: how many requests; None: all that match until `disarm`.
            probability: of each matching request to be struck; None: certain.
            method: of the requests, None for any.
            path: a part of the path.
            number: the order number.
            seed: of the draws; a sandbox draws the same each time.
            options: of the kind, see FAULTS; a list is drawn from at each hit.

        Returns:
            An id for `disarm`.
        """
        return int(
            self._post(
                "arm", names=kind, times=times, probability=probability, method=method, path=path,
                number=number, seed=seed, **options,
            )
        )  # fmt: skip

    def random_faults(
        self, probability: float, seed: int = 0, *, kinds: list[str] | None = None, **options: Any
    ) -> int:
        """Let each POST suffer, with a probability, any fault that a faultless caller gets over by itself.

        All that can happen on the way is in it; refusals, a wrong token, and what makes a second or half an
        order are not. Stalls and drips are short; a late commit comes after `seconds` of the sandbox's clock
        (0.2) and must stay below the caller's settle window.
        """
        names = mixed_kinds() if kinds is None else kinds
        possible = {option for name in names for option in FAULTS[name].options}
        quick = {name: value for name, value in QUICK.items() if name in possible}
        return self.arm(names, probability=probability, seed=seed, **{**quick, **options})

    def disarm(self, arm_id: int | None = None) -> None:
        """Take back one fault, or all."""
        self._post("disarm", id=arm_id)

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change settings, see `settings.Settings`; gives all of them."""
        changed: dict[str, Any] = self._post("settings", **settings)
        return changed

    def advance(self, seconds: float) -> float:
        """Move the sandbox's clock; gives its new time in epoch seconds."""
        return float(self._post("advance", seconds=seconds))

    def now(self) -> float:
        """The sandbox's clock in epoch seconds."""
        return float(self._get("now"))

    def orders(self, number: str | None = None) -> list[dict[str, Any]]:
        """What is at KK, listed or not: id, number, call, state, warehouse, goods, address, created_at, ...

        The orders of one split have the same `call`.
        """
        path = "orders" if number is None else f"orders?number={quote(number, safe='')}"
        found: list[dict[str, Any]] = self._get(path)
        return found

    def duplicates(self) -> list[str]:
        """Order numbers that more than one call has made orders of."""
        found: list[str] = self._get("duplicates")
        return found

    def requests(self) -> list[dict[str, Any]]:
        """The last 50,000 requests: at, method, path, number, outcome, status, fault, kk_order_ids."""
        found: list[dict[str, Any]] = self._get("requests")
        return found

    def counts(self) -> dict[str, Any]:
        """Figures, see `state.counts`: creates, commits, orders, numbers, requests, ..."""
        found: dict[str, Any] = self._get("counts")
        return found

    def catalogue(self) -> list[dict[str, Any]]:
        """Every SKU: sku, country (its warehouse), price in cents, stock, ..."""
        found: list[dict[str, Any]] = self._get("catalogue")
        return found

    def place(
        self,
        goods: dict[str, int],
        *,
        number: str | None = None,
        age_s: float = 0.0,
        remark: str | None = None,
        **address: str,
    ) -> list[str]:
        """Make an order past limits and faults, as by hand at KK's site or by another tool; gives its ids."""
        made: list[str] = self._post(
            "place", goods=goods, number=number, age_s=age_s, remark=remark, address=address
        )
        return made

    def move(self, kk_order_id: str, state: str) -> None:
        """Put an order into one of `travel.MOVES` at once; from there it goes on by the timetable.

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
        """Let product queries list other values of a SKU, in KK's names: `price="N/A"`, `skuStatus=3`.

        Each call replaces the one before; without fields the catalogue's values are back. What an order
        costs and whether it is taken do not change.
        """
        self._post("sku-details", sku=sku, fields=fields)

    def reset(self) -> None:
        """Forget orders, faults and the log; settings and the clock stay."""
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
