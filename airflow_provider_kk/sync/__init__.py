"""The application: load orders, plan, deliver, write results, decide whether a task succeeds.

It reads connections by `hooks` and imports no Airflow; operators and commands call it.
"""
