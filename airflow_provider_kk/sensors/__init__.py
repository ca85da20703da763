"""Sensors that wait for orders at KK."""
