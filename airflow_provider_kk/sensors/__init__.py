"""Waiting for what happens to an order at KK."""
