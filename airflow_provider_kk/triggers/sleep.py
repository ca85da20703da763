"""A trigger that sleeps, so that waiting for a settle window takes no worker's slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class SleepTrigger(BaseTrigger):
    """Fires once, at a time.

    :param until: epoch seconds of the worker's clock; absolute, so that a restart does not start over.
    :param longest_s: seconds that it sleeps at most, however far the triggerer's clock is behind.
    """

    def __init__(self, until: float, longest_s: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until
        self.longest_s = longest_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how to make this trigger again."""
        arguments = {"until": self.until, "longest_s": self.longest_s}
        return "airflow_provider_kk.triggers.sleep.SleepTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, then fire."""
        rest_s = self.until - time.time()
        await asyncio.sleep(max(0.0, rest_s if self.longest_s is None else min(rest_s, self.longest_s)))
        yield TriggerEvent({"until": self.until})  # type: ignore[no-untyped-call]
