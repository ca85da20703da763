"""The application: load orders, plan, deliver, write results, decide whether a task succeeds.

Operators and commands call it. It reads connections by `hooks` and imports no Airflow.
"""
