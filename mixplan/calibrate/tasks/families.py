"""The synthetic families by name."""

from __future__ import annotations

from mixplan.calibrate.tasks import comparison, modular_addition, table_lookup
from mixplan.calibrate.tasks.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family for family in (comparison.FAMILY, modular_addition.FAMILY, table_lookup.FAMILY)
}
