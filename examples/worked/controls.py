"""Two departures from the ladder's protocol, each taken back: do they make observed differ from predicted?

    python examples/worked/controls.py CORPUS FOLDER        (after run.py, same arguments)

even       the recommended shares, the rare sources' text without instances, and the same number of instances
           spread evenly over all training text, as the ladder injected them.
own text   the recommended runs again, asked behind unused text of the source that holds the task, and not
           only behind held-out common text as the ladder's probes do.

Writes FOLDER/controls.csv: one row a run and way of asking.

Shape legend: n = samples, L = sequence length, B = sequences a step.
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from mixplan.calibrate.injection import Injector
from mixplan.documents import Plan, Recipe, load, save
from mixplan.recipes.emitting import emit

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mixing
import run as worked
import sources
import train


def without_instances(corpus: Path, folder: Path, plan: Plan) -> None:
    """Write plain/NAME: the rare sources' text, in the same number of samples and nothing written over it."""
    if (folder / "plain" / "done").exists():
        return
    block = sources.ladder().training.batch_sequences or 1
    bare = plan.model_copy(update={"tasks": []})
    for name in sources.RARE:
        rows, _ = sources.rare_rows(name, corpus, bare, {}, sources.END_OF_DOCUMENT, block)
        sources.write_mds(folder / "plain" / name, rows)
    (folder / "plain" / "done").touch()


def spread_evenly(samples: np.ndarray, plan: Plan, counts: dict[str, int], seed: int) -> np.ndarray:
    """Samples (n, L) with as many instances as the recommended mixture holds, injected as the ladder does."""
    tasks = sources.make_tasks(plan)
    batch = sources.ladder().training.batch_sequences or 1
    steps, length = len(samples) // batch, samples.shape[1]
    injector = Injector(
        list(tasks.values()),
        [counts[name] / samples.size for name in tasks],
        sources.END_OF_DOCUMENT,
        batch,
        length,
        steps,
        seed,
    )
    blocks = samples[: steps * batch].astype(np.int64).reshape(steps, batch, length)
    return np.concatenate([injector.inject(step, block)[0] for step, block in enumerate(blocks)])


def instances(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """Instances of each task in the recommended mixture, repeats included: Σ density × tokens drawn."""
    drawn = {source.name: source.tokens for source in recipe.sources}
    return {
        task.name: round(sum(density * drawn[name] for name, density in task.density.items()))
        for task in plan.tasks
    }


def own_contexts(corpus: Path, name: str, count: int, tokens: int) -> np.ndarray:
    """Pieces of a rare source's text that no sample holds, int64 (count, tokens)."""
    place, mark, used = sources.RARE[name]
    documents = (path.read_bytes() for path in sorted((corpus / place).glob("*.txt"), reverse=True))
    wanted = mark.encode()
    text = b"".join(one for one in documents if wanted in one[:2000])[:used]
    starts = np.random.default_rng(sources.SEED).integers(0, len(text) - tokens, size=count)
    return np.stack([np.frombuffer(text[at : at + tokens], np.uint8) for at in starts]).astype(np.int64)


def one_control(corpus: Path, folder: Path, name: str, seed: int) -> list[dict[str, object]]:
    """Train one run and ask it in every way that the control asks for; the rows of controls.csv."""
    import torch

    from mixplan.calibrate.probes import CONTEXT_TOKENS, learning
    from mixplan.calibrate.tasks import Cell

    plan, recipe = load(folder / "plan.yaml", Plan), load(folder / "recipe.yaml", Recipe)
    arm = mixing.Arm(name, {source.name: source.share for source in recipe.sources}, seed)
    place = folder / "runs" / f"control-{arm.run_id}"
    samples = np.load(place / "samples.npy")
    spec, held_out = sources.ladder(), np.load(folder / "held_out.npy")
    if name == "even":
        samples = spread_evenly(samples, plan, instances(recipe, plan), seed)
    spec_of_run = train.run_spec(spec, recipe.size.name, len(samples), seed, plan.sequence_length)
    model = train.train(spec, spec_of_run, samples, sources.END_OF_DOCUMENT)
    found = train.measure(model, spec, plan, held_out, seed)
    rows: list[dict[str, object]] = [
        {"arm": name, "seed": seed, "asked_behind": "common text", **found["skill"]}
    ]
    if name == "own text":
        skills: dict[str, float] = {}
        for task in plan.tasks:
            made = sources.make_tasks(plan)[task.name]
            contexts = own_contexts(corpus, next(iter(task.density)), 64, CONTEXT_TOKENS)
            asked = learning.unseen(
                [Cell(made, 0.0)], spec.probes.max_instances, contexts, torch.device("cpu")
            )
            skills[task.name] = learning.skills(model, asked, spec.training.precision)[0]["skill"]
        rows.append({"arm": name, "seed": seed, "asked_behind": "own text", **skills})
    return rows


def prepare(corpus: Path, folder: Path) -> None:
    """Emit both controls' mixtures for every seed and read their samples."""
    plan, recipe = load(folder / "plan.yaml", Plan), load(folder / "recipe.yaml", Recipe)
    without_instances(corpus, folder, plan)
    shares = {source.name: source.share for source in recipe.sources}
    plain = [
        source.model_copy(update={"mds": str((folder / "plain" / source.name).resolve())})
        if source.name in sources.RARE
        else source
        for source in recipe.sources
    ]
    for seed in worked.SEEDS:
        for name, own in (("even", recipe.model_copy(update={"sources": plain})), ("own text", recipe)):
            arm = mixing.Arm(name, shares, seed)
            place = folder / "runs" / f"control-{arm.run_id}"
            if (place / "samples.npy").exists():
                continue
            place.mkdir(parents=True, exist_ok=True)
            save(mixing.recipe_of(own, arm), place / "recipe.yaml")
            emit(place / "recipe.yaml", place / "mixture", force=True)
            np.save(place / "samples.npy", mixing.read_samples(place / "mixture", recipe.samples))


def main() -> int:
    """Both controls with every seed."""
    corpus, folder = (Path(argument) for argument in sys.argv[1:3])
    prepare(corpus, folder)
    jobs = [(corpus, folder, name, seed) for name in ("even", "own text") for seed in worked.SEEDS]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = [row for rows in pool.map(one_control, *zip(*jobs, strict=True)) for row in rows]
    mixing.write_table(folder / "controls.csv", rows)
    print(f"wrote {folder / 'controls.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
