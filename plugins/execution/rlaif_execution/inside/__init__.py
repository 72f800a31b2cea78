"""What runs inside the sandbox: standard library alone, and nothing that knows an expected value.

The reward imports `wire` and `program` from here too. The other modules are run by `rlaif_execution.confinement`.
"""
