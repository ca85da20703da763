"""Triggers only sleep and read; all state is in the ledger."""
