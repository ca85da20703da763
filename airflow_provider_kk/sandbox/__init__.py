"""A local KK for demos and tests: the supplier's HTTP API on loopback, with the faults of a network.

It shares no code with the rooms that it tests, so that it checks the protocol independently.
`server.SandboxServer` serves a test, `command` serves `kk sandbox`, `control.SandboxControl` controls both.
It needs Flask: install the extra `sandbox`.
"""
