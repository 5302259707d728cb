"""What is measured during a run. These numbers are shared with the cost estimate, which imports no torch."""

CONTEXT_TOKENS = 8
"""Held-out text before each scored prompt; none where instances are injected at the start of a sequence."""
INTERFERENCE_INSTANCES = 256
"""Instances behind a task's reference gradient, at most."""
