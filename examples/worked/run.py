"""The worked example, whole: sources → plan → recommended mixture → trained beside the natural one.

    python examples/worked/run.py CORPUS FOLDER

CORPUS is what tools/assemble_corpus.py wrote. Run again, it continues where it was interrupted. Writes
FOLDER/recipe.yaml (the answer) and FOLDER/worked.csv (what the trained models can do), and prints both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixplan.documents import Plan, Recipe, load

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mixing
import sources

CALIBRATION = "ref:cpu-manuals"
SEEDS = (0, 1, 2)
LEARNED = 0.8
"""Skill from which a task counts as learned; the calibration says the same."""


def prepare(corpus: Path, folder: Path) -> Recipe:
    """The sources and the answer of `mixplan recommend`; nothing is made twice."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "plan.yaml").exists():
        shutil.copy(Path(__file__).with_name("plan.yaml"), folder)
    if not (folder / "world.json").exists():
        shutil.rmtree(folder / "sources", ignore_errors=True)
        sources.write_sources(corpus, folder, load(folder / "plan.yaml", Plan))
    if not (folder / "recipe.yaml").exists():
        command = ["recommend", "plan.yaml", "--calibration", CALIBRATION, "--explain"]
        print("$ mixplan " + " ".join(command), flush=True)
        subprocess.run([sys.executable, "-m", "mixplan", *command], cwd=folder, check=True)
    return load(folder / "recipe.yaml", Recipe)


def arms_of(recipe: Recipe) -> list[mixing.Arm]:
    """The natural and the recommended shares, each with every seed."""
    shares = {
        "natural": {source.name: source.natural_share for source in recipe.sources},
        "recommended": {source.name: source.share for source in recipe.sources},
    }
    return [mixing.Arm(name, own, seed) for seed in SEEDS for name, own in shares.items()]


def comparison(recipe: Recipe, rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Predicted against observed, as lines of Markdown.

    Args:
        recipe: the answer, with the predictions for both mixtures.
        rows: of worked.csv; other arms than natural and recommended are left out.
    """
    lines = [
        "| task | mixture | P(learned) | predicted skill (90 %) | observed, by seed | mean | outside |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = {name: [row for row in rows if row["arm"] == name] for name in ("natural", "recommended")}
    inside = total = 0
    for task in recipe.tasks:
        for name, said in (("natural", task.natural), ("recommended", task.recommended)):
            skills = np.array([float(str(row[f"skill.{task.name}"])) for row in runs[name]])
            within = int(((skills >= said.skill_low) & (skills <= said.skill_high)).sum())
            inside, total = inside + within, total + len(skills)
            lines.append(
                f"| {task.name} | {name} | {said.p_learned:.3f} "
                f"| {said.skill:.2f} ({said.skill_low:.2f} … {said.skill_high:.2f}) "
                f"| {', '.join(f'{skill:.2f}' for skill in skills)} | {skills.mean():.2f} "
                f"| {len(skills) - within} of {len(skills)} |"
            )
    lines += ["", f"{inside} of {total} observed skills lie inside their 90 % intervals.", ""]
    expected = {
        "natural": sum(task.natural.p_learned for task in recipe.tasks),
        "recommended": sum(task.recommended.p_learned for task in recipe.tasks),
    }
    assert recipe.common_loss_nats is not None and recipe.common_loss_increase_nats is not None
    predicted = {
        "natural": recipe.common_loss_nats - recipe.common_loss_increase_nats,
        "recommended": recipe.common_loss_nats,
    }
    lines += [
        "| mixture | tasks learned, predicted | observed, by seed | common loss, predicted "
        "| observed, by seed | mean |",
        "|---|---|---|---|---|---|",
    ]
    observed = {}
    for name, own in runs.items():
        losses = np.array([float(str(row["lm_loss"])) for row in own])
        observed[name] = losses.mean()
        lines.append(
            f"| {name} | {expected[name]:.2f} of {len(recipe.tasks)} "
            f"| {', '.join(str(learned(row)) for row in own)} | {predicted[name]:.3f} "
            f"| {', '.join(f'{loss:.3f}' for loss in losses)} | {losses.mean():.3f} |"
        )
    lines += [
        "",
        f"Increase of the common loss: predicted {recipe.common_loss_increase_nats:+.3f} nats, observed "
        f"{observed['recommended'] - observed['natural']:+.3f}; its level: predicted − observed "
        f"{predicted['natural'] - observed['natural']:+.3f} (natural), "
        f"{predicted['recommended'] - observed['recommended']:+.3f} (recommended).",
    ]
    return lines


def learned(row: Mapping[str, object]) -> int:
    """Tasks of a run whose skill reaches LEARNED."""
    return sum(float(str(value)) >= LEARNED for key, value in row.items() if key.startswith("skill."))


def main() -> int:
    """All steps; the table is written when every run is done."""
    corpus, folder = (Path(argument) for argument in sys.argv[1:3])
    recipe = prepare(corpus, folder)
    rows = mixing.train_all(folder, recipe, arms_of(recipe))
    mixing.write_table(folder / "worked.csv", rows)
    print("\n".join(comparison(recipe, rows)))
    print(f"wrote {folder / 'worked.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
