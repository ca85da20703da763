"""Apache Airflow provider for KK (KakaClo): a warehouse order becomes one KK order, not none and not two.

The public interface is listed in docs/public-interface.md. Everything else in this package is private: it may
change in any release.
"""

from __future__ import annotations

__version__ = "0.1.0"
