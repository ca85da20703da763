"""A local KK for demos and tests: the supplier's HTTP API on loopback, with the faults of a network.

It shares no code with the rooms that it tests, so that it is an independent witness of the protocol.
`server.SandboxServer` serves a test, `command` serves `kk sandbox`, `control.SandboxControl` steers either.
Needs Flask: the extra `sandbox`.
"""
