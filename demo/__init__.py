"""`make demo` and `make ui`: a shop's warehouse, a local KK and a real Airflow, on this machine alone."""
