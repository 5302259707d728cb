"""The command line in this process, for tests."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from mixplan import cli


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


def mixplan(*arguments: object) -> Result:
    """The command in this process: the same entry point, without the seconds a new interpreter takes."""
    out, err = io.StringIO(), io.StringIO()
    words = ["mixplan", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())
