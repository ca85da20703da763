"""A trigger that sleeps, so that waiting for a settle window takes no worker's slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class SleepTrigger(BaseTrigger):
    """Fires once, at a time.

    :param until: epoch seconds of the triggerer's clock; absolute, so that a restart does not start over.
    """

    def __init__(self, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how to make this trigger again."""
        return "airflow_provider_kk.triggers.sleep.SleepTrigger", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, then fire."""
        await asyncio.sleep(max(0.0, self.until - time.time()))
        yield TriggerEvent({"until": self.until})  # type: ignore[no-untyped-call]
