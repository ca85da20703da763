"""Apache Airflow provider for KK (KakaClo): a warehouse order becomes one KK order, not none and not two."""

from __future__ import annotations

__version__ = "0.1.0"
