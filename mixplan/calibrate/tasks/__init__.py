"""The injected tasks: synthetic families, the user's own, and the cells of a run that they make up."""

from mixplan.calibrate.tasks.base import Family, Instance, Task
from mixplan.calibrate.tasks.cells import (
    Cell,
    common_protocol,
    dependence_cells,
    make_cells,
    make_probe_tasks,
)
from mixplan.calibrate.tasks.families import FAMILIES
from mixplan.calibrate.tasks.symbols import reserved_symbols

__all__ = [
    "FAMILIES",
    "Cell",
    "Family",
    "Instance",
    "Task",
    "common_protocol",
    "dependence_cells",
    "make_cells",
    "make_probe_tasks",
    "reserved_symbols",
]
