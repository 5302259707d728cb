"""Which of Optuna's samplers finds the better mixtures in the same number of trials, and in what time.

    OMP_NUM_THREADS=1 python benchmarks/samplers.py [--seeds 3] [--trials 400] [--short 40] [--gp-seeds 1]

Three problems where the search has something to find: `peaked`, the cheapest mixture under laws that fall
again at high frequency; `values`, the most value under a tight budget from tasks that live in several
sources; `both`, values under such laws. Each is searched from the analytic answers and from the natural
mixture. What counts is the answer after the last step of `search` (the best token count for the mixture that
was found), set against the best that any run found, among them a long one of NSGA-II. The Gaussian process is
too slow for as many trials as the others: it is compared at `--short` ones, from the analytic answers.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents import Plan
from mixplan.documents.forecast import GoalForecast
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.problem import Problem
from mixplan.recommend.search import Space, trials_from
from mixplan.recommend.solve import Candidate, Solver, rank
from mixplan.recommend.study import Settings

SIZES = ["cpu_8k", "cpu_33k", "cpu_132k"]
LONG = 4000  # trials of the runs that say how good it can get


class Law:
    """logit p = 1 + 1.15·ln(f/1e-3) + 0.65·ln(N/33056) + 2.4·ln(D/3.3e6) − fall·max(ln(f/peak), 0)²."""

    def __init__(self, fall: float) -> None:
        self.fall = fall
        self.peaks = {f"kind{at}": 10 ** (-2.9 + 0.15 * at) for at in range(8)}

    def families(self) -> dict[str, list[float]]:
        return {family: [1.0] for family in self.peaks}

    def sources(self) -> list[str]:
        return []

    def reached(self, goals, goal, block_params, tokens, frequency):  # type: ignore[no-untyped-def]
        peak = np.array([self.peaks[goals[at].family] for at in goal])
        over = np.maximum(np.log(frequency / peak), 0.0)
        logit = 1 + 1.15 * np.log(frequency / 1e-3) + 0.65 * np.log(block_params / 33056)
        logit = logit + 2.4 * np.log(tokens / 3.3e6) - self.fall * over**2
        return (1 / (1 + np.exp(-np.clip(logit, -700, 700))))[:, None]

    def told(self, goals, goal, block_params, tokens, frequency):  # type: ignore[no-untyped-def]
        p = self.reached(goals, goal, block_params, tokens, frequency)[:, 0]
        return GoalForecast(p, p, p, [[] for _ in p])

    def parameters(self, goals):  # type: ignore[no-untyped-def]
        return [], np.empty((1, 0))

    def lm_loss(self, block_params, tokens, common_share=None):  # type: ignore[no-untyped-def]
        return 1.5 + 9.0 / np.asarray(block_params) ** 0.28 + 200.0 / np.asarray(tokens) ** 0.45

    def lm_loss_draws(self, block_params, tokens):  # type: ignore[no-untyped-def]
        return None


def plan(tasks: int, sources: int, homes: int, **changes: Any) -> dict[str, Any]:
    """Tasks with densities in `homes` rare sources each."""
    generator = np.random.default_rng(1)
    rare = [f"r{at}" for at in range(sources)]
    listed = [{"name": "web", "role": "common", "tokens_available": 1e8}]
    for name in rare:
        count = float(np.exp(generator.uniform(np.log(3e4), np.log(4e5))))
        listed.append({"name": name, "role": "rare", "tokens_available": count, "max_epochs": 16})
    asked = []
    for at in range(tasks):
        held = [rare[at % sources]] if homes == 1 else generator.choice(rare, homes, replace=False)
        density = {str(home): float(np.exp(generator.uniform(np.log(0.01), np.log(0.1)))) for home in held}
        value = float(generator.integers(1, 6))
        asked.append(
            {"name": f"t{at}", "family": f"kind{at}", "complexity": 1, "density": density, "value": value}
        )
    return {
        "sources": listed,
        "tasks": asked,
        "sizes": SIZES,
        "sequence_length": 128,
        "vocab_size": 257,
        "budget": {"tokens": 2e7},
        "constraints": {"max_common_loss_increase_nats": 0.02},
        **changes,
    }


def problems() -> dict[str, tuple[Problem, Law]]:
    """By name: what is searched, under which laws."""
    tight = {"objective": "value", "budget": {"flops": 1.2e12}}
    listed = {
        "peaked": (plan(6, 8, 2), Law(0.6)),
        "values": (plan(8, 8, 3, **tight), Law(0.0)),
        "both": (plan(8, 8, 3, **tight), Law(0.6)),
    }
    return {
        name: (build_problem(Plan.model_validate(asked), law, Path(".")), law)
        for name, (asked, law) in listed.items()
    }


def natural(problem: Problem, law: Law) -> list[Candidate]:
    """The natural mixture for as long as the budget allows, at every size."""
    found = []
    for size in range(len(problem.shapes)):
        tokens = np.array([float(problem.horizon[size])])
        found.append(Candidate(evaluate(problem, law, np.array([size]), tokens, problem.natural[None, :])))
    return found


def answer(solver: Solver, problem: Problem, starts: list[Candidate], settings: Settings) -> Candidate:
    """The best of all trials, as `search` gives it."""
    trials = trials_from(Space.around(problem, starts), solver.forecast, settings)
    best = min(trials, key=lambda one: rank(problem, one))
    return solver.improve(problem, best)


def score(problem: Problem, candidate: Candidate) -> float:
    """What the objective minimises; infinite where a limit does not hold."""
    return rank(problem, candidate)[1] if candidate.feasible else np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--short", type=int, default=40)
    parser.add_argument("--gp-seeds", type=int, default=1)
    given = parser.parse_args()
    began = time.process_time()
    print("| problem | start | trials | sampler | seeds | mean gap | worst gap | infeasible | CPU s a run |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (problem, law) in problems().items():
        solver = Solver(law)
        analytic = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
        scores: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        seconds: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        best = min(analytic, key=lambda one: rank(problem, one))
        # The analytic answer itself, for comparison.
        scores["analytic", 0, "none"].append(score(problem, best))
        seconds["analytic", 0, "none"].append(0.0)
        for start, begun in (("analytic", analytic), ("natural", natural(problem, law))):
            cheap = ("random", "tpe", "nsga2")
            runs = [(sampler, trials) for trials in (given.short, given.trials) for sampler in cheap]
            if start == "analytic":
                runs.append(("gp", given.short))
            for sampler, trials in runs:
                for seed in range(given.gp_seeds if sampler == "gp" else given.seeds):
                    before = time.process_time()
                    found = answer(solver, problem, begun, Settings(sampler, trials, seed))
                    seconds[start, trials, sampler].append(time.process_time() - before)
                    scores[start, trials, sampler].append(score(problem, found))
        before = time.process_time()
        settled = answer(solver, problem, analytic, Settings("nsga2", LONG, 1000))
        scores["analytic", LONG, "nsga2"].append(score(problem, settled))
        seconds["analytic", LONG, "nsga2"].append(time.process_time() - before)
        known = min(min(some) for some in scores.values())
        for key, some in scores.items():
            gaps = (np.array(some) - known) / abs(known)
            held = np.isfinite(gaps)
            mean, worst = (f"{100 * f(gaps[held]):.2f}%" if held.any() else "–" for f in (np.mean, np.max))
            cost = np.mean(seconds[key])
            start, trials, sampler = key
            cells = [name, start, trials, sampler, len(some), mean, worst, int((~held).sum())]
            print("|", " | ".join(str(cell) for cell in [*cells, f"{cost:.2f}"]), "|", flush=True)
    print(f"\n{time.process_time() - began:.0f} s of CPU time in all")


if __name__ == "__main__":
    main()
