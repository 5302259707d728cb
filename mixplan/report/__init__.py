"""One self-contained HTML page from a working folder: one figure a decision. Imports no other stage."""

from __future__ import annotations

from pathlib import Path

from mixplan.documents.atomic import refuse_overwrite, write_text
from mixplan.documents.forecast import CellForecast
from mixplan.report.inputs import Inputs, find_inputs
from mixplan.report.page import render

__all__ = ["Inputs", "find_inputs", "render", "write_report"]


def write_report(inputs: Inputs, forecast: CellForecast | None, path: Path, force: bool = False) -> None:
    """Render and write the page atomically.

    Raises:
        InputError: `path` exists and `force` is false, or is a folder.
    """
    refuse_overwrite(path, "report", force)
    write_text(path, render(inputs, forecast))
