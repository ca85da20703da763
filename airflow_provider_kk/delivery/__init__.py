"""The protocol that makes one order at KK of one job: a ledger, an attempt, and reconciling by KK's list.

It imports no Airflow, and no SQLAlchemy outside of `sql`. Jobs are orders or refunds (`model.Job`).
"""
