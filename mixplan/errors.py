"""The two ways mixplan says no.

`InputError` (exit code 2): what was given is wrong; it carries every problem found, not just the first.
`NoAnswer` (exit code 1): the input is fine and the answer is no (infeasible plan, failed verification).
"""

from __future__ import annotations

from collections.abc import Iterable


class MixplanError(Exception):
    """Base of all errors that are meant for the user; shown without a traceback."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class InputError(MixplanError):
    """What was given is wrong. Each problem says what was given, the rule, and the way out."""

    exit_code = 2


class NoAnswer(MixplanError):
    """The question is well posed and its answer is no."""

    exit_code = 1
