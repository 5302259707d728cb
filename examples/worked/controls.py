"""Two departures from the ladder's protocol: do they make observed differ from predicted?

    python examples/worked/controls.py CORPUS FOLDER        (after run.py, same arguments)

How instances lie: the recommended shares are trained again with the rare sources' text as it is, and the same
number of instances spread evenly over all training text, as the ladder injected them ("even").
How skill is asked: behind held-out common text, as the ladder asks, and behind text of the source that holds
the task (columns own.TASK of every table).

Writes FOLDER/even.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixplan.calibrate.injection import Injector
from mixplan.documents import Plan, Recipe, load

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mixing
import run as worked
import sources


def without_instances(corpus: Path, folder: Path, plan: Plan) -> None:
    """Write plain/NAME: the rare sources' text, as many samples as before, and nothing written over it."""
    done = folder / "plain" / "done"
    if done.exists():
        return
    bare = plan.model_copy(update={"tasks": []})
    block = sources.ladder().training.batch_sequences or 1
    for name in sources.RARE:
        rows, _ = sources.rare_rows(name, corpus, bare, {}, sources.END_OF_DOCUMENT, block)
        sources.write_mds(folder / "plain" / name, rows)
    done.touch()


def instances(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """Instances of each task in the recommended mixture, repeats included: Σ density × tokens drawn."""
    drawn = {source.name: source.tokens for source in recipe.sources}
    return {
        task.name: round(sum(density * drawn[name] for name, density in task.density.items()))
        for task in plan.tasks
    }


def spread_evenly(samples: np.ndarray, plan: Plan, counts: Mapping[str, int], seed: int) -> np.ndarray:
    """Samples with so many instances of each task written over them, where and when the ladder would.

    Args:
        samples: shape (n, L); the last n mod B, which no run reads, are left out of the result.
        counts: instances of each task of the plan.
        seed: of the run.
    """
    tasks = sources.make_tasks(plan)
    batch = sources.ladder().training.batch_sequences or 1
    steps, length = len(samples) // batch, samples.shape[1]
    frequencies = [counts[name] / (steps * batch * length) for name in tasks]
    end = sources.END_OF_DOCUMENT
    injector = Injector(list(tasks.values()), frequencies, end, batch, length, steps, seed)
    blocks = samples[: steps * batch].astype(np.int64).reshape(steps, batch, length)
    written = [injector.inject(step, block)[0] for step, block in enumerate(blocks)]
    return np.concatenate(written).astype(samples.dtype)


def compared(
    recipe: Recipe, rows: Sequence[Mapping[str, object]], even: Sequence[Mapping[str, object]]
) -> list[str]:
    """Mean skills as lines of Markdown: predicted, recommended, even; and both ways of asking.

    Args:
        rows: final runs of every strategy; where own.TASK is empty or missing it was not measured.
        even: of even.csv.
    """
    both = [row for row in rows if row.get(f"own.{recipe.tasks[0].name}") not in (None, "")]
    lines = [
        "| task | predicted | recommended | even | "
        f"{len(both)} runs behind common text | the same behind own text |",
        "|---|---|---|---|---|---|",
    ]
    recommended = [row for row in rows if row["arm"] == "recommended"]
    for task in recipe.tasks:
        columns = [
            _mean(recommended, f"skill.{task.name}"),
            _mean(even, f"skill.{task.name}"),
            _mean(both, f"skill.{task.name}"),
            _mean(both, f"own.{task.name}"),
        ]
        shown = " | ".join(f"{value:.2f}" for value in columns)
        lines.append(f"| {task.name} | {task.recommended.skill:.2f} | {shown} |")
    losses = " and ".join(f"{_mean(part, 'lm_loss'):.3f}" for part in (recommended, even))
    return [*lines, "", f"Common loss, recommended and even: {losses} nats."]


def _mean(rows: Sequence[Mapping[str, object]], key: str) -> float:
    return float(np.mean([float(str(row[key])) for row in rows])) if rows else float("nan")


def main() -> int:
    """Train the control with every seed."""
    corpus, folder = (Path(argument) for argument in sys.argv[1:3])
    plan, recipe = load(folder / "plan.yaml", Plan), load(folder / "recipe.yaml", Recipe)
    without_instances(corpus, folder, plan)
    plain = [
        source.model_copy(update={"mds": str((folder / "plain" / source.name).resolve())})
        if source.name in sources.RARE
        else source
        for source in recipe.sources
    ]
    own = recipe.model_copy(update={"sources": plain})
    counts = instances(recipe, plan)
    shares = {source.name: source.share for source in recipe.sources}
    even = mixing.train_all(
        folder,
        own,
        [mixing.Arm("even", shares, seed) for seed in worked.SEEDS],
        change=lambda samples, arm: spread_evenly(samples, plan, counts, arm.seed),
    )
    mixing.write_table(folder / "even.csv", even)
    print(f"wrote {folder / 'even.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
