"""Turn rows of a warehouse into orders, and results into rows.

Works on any DbApiHook of Airflow and imports no Airflow itself.
"""
