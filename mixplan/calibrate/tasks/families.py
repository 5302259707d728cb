"""The synthetic families by name."""

from __future__ import annotations

from mixplan.calibrate.tasks import (
    associative_recall,
    comparison,
    modular_addition,
    parity,
    permutation_composition,
    regular_language,
    table_lookup,
)
from mixplan.calibrate.tasks.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        comparison.FAMILY,
        modular_addition.FAMILY,
        table_lookup.FAMILY,
        associative_recall.FAMILY,
        permutation_composition.FAMILY,
        parity.FAMILY,
        regular_language.FAMILY,
    )
}
