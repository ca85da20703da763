"""One job becomes one effect at KK: the ledger and the protocol around one POST.

This room knows nothing of Airflow. It serves orders today and is written on jobs (`job.py`), so that
anything else that KK creates by a POST without an idempotency key can be delivered the same way. All that
it knows of databases is in `sql`.
"""
