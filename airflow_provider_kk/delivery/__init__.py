"""The protocol by which one job becomes one order at KK: a ledger, an attempt, and reconciling by KK's list.

Jobs are orders or refunds (`model.Job`). The package imports no Airflow, and SQLAlchemy only in `sql`.
"""
