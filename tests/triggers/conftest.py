"""Triggers in this process: the same connections, warehouse and KK as operators have."""

from __future__ import annotations

from tests.operators.conftest import connect, printed, warehouse

__all__ = ["connect", "printed", "warehouse"]
