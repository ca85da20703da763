"""Rows of a warehouse become orders, results become rows.

Works on any DbApiHook of Airflow and imports no Airflow itself.
"""
