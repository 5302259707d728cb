"""What the command line shows, word for word. `python tests/test_golden.py` writes the golden files anew."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden"
BAD = "bad_calibration.yaml"

CASES: dict[str, list[str]] = {
    "help": ["--help"],
    "init_help": ["init", "--help"],
    "validate_help": ["validate", "--help"],
    "schema_help": ["schema", "--help"],
    "plan_help": ["plan", "--help"],
    "init": ["init", "starters"],
    "validate_bad": ["validate", BAD],
    "validate_missing": ["validate", "bad_calibratoin.yaml"],
    "schema_unknown": ["schema", "plann"],
    "schema_presets_head": ["schema", "presets"],
    "plan_bad": ["plan", BAD],
    "no_such_command": ["paln"],
}
# The layout of help texts is typer's and changes with it.
HELP_WRITTEN_WITH = "0.29."
HEAD_LINES = {"schema_presets_head": 16}


def shown(case: str, folder: Path) -> str:
    """Exit code, standard output and standard error of one command, run in `folder`."""
    (folder / BAD).write_text((GOLDEN / BAD).read_text(encoding="utf-8"), encoding="utf-8")
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mixplan", *CASES[case]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    out = "\n".join(done.stdout.splitlines()[: HEAD_LINES.get(case)])
    lines = [f"$ mixplan {' '.join(CASES[case])}", out, done.stderr.rstrip(), f"exit code {done.returncode}"]
    return "\n".join(line.rstrip() for text in lines if text for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_shown_as_before(case: str, tmp_path: Path) -> None:
    if "--help" in CASES[case] and not version("typer").startswith(HELP_WRITTEN_WITH):
        pytest.skip("the golden help texts were written with another typer")
    assert shown(case, tmp_path) == (GOLDEN / f"{case}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for name in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            (GOLDEN / f"{name}.txt").write_text(shown(name, Path(temporary)), encoding="utf-8")
