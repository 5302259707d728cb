"""Plan and laws become a model size and a mixture. Heavy imports (Optuna, SciPy) happen on the call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixplan.documents.base import Provenance
from mixplan.documents.calibration import Calibration
from mixplan.documents.forecast import Forecast
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Recipe
from mixplan.documents.references import KEY, reference_in, warning
from mixplan.errors import NoAnswer
from mixplan.recommend.explain import explain
from mixplan.recommend.shown import headline, tables

__all__ = ["HEADER", "WHAT_IF_HEADER", "Infeasible", "explain", "hashes", "headline", "recommend", "tables"]

HEADER = """The mixture that `mixplan recommend` chose. `choose` counts samples of `sequence_length` tokens
over the whole run; every predicted number is at this size and token count. Intervals are 90 %: of a
probability over the laws' draws, of a skill for a new run.
"""

WHAT_IF_HEADER = """A mixture given to `mixplan recommend --what-if`, not chosen: what the laws say of it.
Its warnings name the limits of the plan that it breaks.
"""


class Infeasible(NoAnswer):
    """No mixture holds every limit; `report` says why, for programs."""

    def __init__(self, lines: list[str], report: dict[str, Any]) -> None:
        super().__init__(lines)
        self.report = report


def recommend(
    plan: Plan,
    forecast: Forecast,
    folder: Path,
    *,
    calibration: Calibration | None = None,
    seed: int | None = None,
    provenance: Provenance | None = None,
    storage: str | None = None,
    workers: int = 1,
) -> Recipe:
    """The cheapest training that reaches every task's target within the plan's limits.

    Args:
        plan: the plan.
        forecast: the fitted laws.
        folder: folder of the plan file; relative `mds` paths start there.
        calibration: where the laws came from; adds warnings about what was not bracketed or lies outside
            the fit.
        seed: of the search; the plan's if None. The same plan, laws and seed give the same recipe.
        provenance: recorded in the recipe, beside the search's own settings and versions.
        storage: journal file or database URL in which the search is kept; one that was interrupted goes on
            from there, to the same answer.
        workers: processes that search; the answer does not depend on it.

    Raises:
        InputError: the plan cannot be answered with these laws, every problem at once; or the storage cannot
            be used.
        Infeasible: the answer is no; says which limits clash and which nearest plans would do.
    """
    import numpy as np
    import optuna

    from mixplan.recommend.answer import build_recipe
    from mixplan.recommend.checks import build_problem
    from mixplan.recommend.conflicts import diagnose
    from mixplan.recommend.refusal import as_json, describe
    from mixplan.recommend.rounding import round_samples
    from mixplan.recommend.search import search
    from mixplan.recommend.solve import Solver, rank
    from mixplan.recommend.storage import store_of
    from mixplan.recommend.study import Settings

    origin = reference_in(calibration.provenance) if calibration else None
    problem = build_problem(plan, forecast, folder)
    solver = Solver(forecast)
    used_seed = plan.search.seed if seed is None else seed
    store = storage and store_of(storage, plan, problem, calibration, used_seed)
    settings = Settings(plan.search.sampler, plan.search.trials, used_seed, store or None, workers)
    best = search(solver, problem, settings)
    best = [one if one.feasible else solver.nearest(problem, one) for one in best]
    rounded = [round_samples(solver, problem, candidate) for candidate in best]
    chosen = min(rounded, key=lambda whole: rank(problem, whole.candidate))
    if not chosen.candidate.feasible:
        nearest = chosen.candidate
        diagnosis = diagnose(solver, problem)
        lines = describe(problem, diagnosis, nearest)
        report = as_json(problem, diagnosis, nearest, lines)
        raise Infeasible(lines, {**report, "warnings": [warning(origin)]} if origin else report)
    record: Provenance = {
        **(provenance or {}),
        **({KEY: origin.model_dump(mode="json")} if origin else {}),
        "trials": plan.search.trials,
        "sampler": plan.search.sampler,
        "seed": used_seed,
        "versions": {"mixplan": version("mixplan"), "optuna": optuna.__version__, "numpy": np.__version__},
    }
    return build_recipe(
        plan, problem, solver, chosen, [whole.candidate for whole in rounded], calibration, record
    )


def hashes(files: Mapping[str, Path]) -> Provenance:
    """SHA-256 of each input file, by name, for the recipe's provenance."""
    return {f"{name}_sha256": hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
