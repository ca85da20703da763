"""KK over HTTP, and nothing else: no Airflow, so that a plain script can use and test it."""
