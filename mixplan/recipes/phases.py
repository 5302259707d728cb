"""A recipe with phases: one recipe a phase, and what the phases do to each other."""

from __future__ import annotations

from pathlib import Path

from mixplan.documents.mds_index import count_tokens
from mixplan.documents.phases import PhaseFolder, Phases
from mixplan.documents.recipe import Recipe, RecipePhase, RecipeSource
from mixplan.errors import InputError
from mixplan.recipes.fitting import cap_problems
from mixplan.recipes.folders import is_url

PHASES = "phases.yaml"
# Phases draw with seeds so far apart: the few after each are tried where the first is uneven by chance.
_SEEDS_APART = 1000


def phase_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe of each phase, by its folder, in order.

    Shares, rates and epochs are the phase's; seeds differ, or all phases would pick the same samples. What
    is predicted of the whole run is left out.
    """
    wide = max(2, len(str(len(recipe.phases))))
    return {
        f"{number:0{wide}}-{phase.name}"[:100]: _phase_recipe(recipe, phase, number)
        for number, phase in enumerate(recipe.phases, start=1)
    }


def _phase_recipe(recipe: Recipe, phase: RecipePhase, number: int) -> Recipe:
    length = recipe.sequence_length
    sources = []
    for source in recipe.sources:
        choose = phase.choose.get(source.name, 0)
        share = choose / phase.samples
        sources.append(
            source.model_copy(
                update={
                    "choose": choose,
                    "tokens": choose * length,
                    "share": share,
                    "rate": share / source.natural_share if source.natural_share else source.rate,
                    "epochs": choose * length / source.tokens_available,
                }
            )
        )
    return Recipe(
        name=f"{recipe.name}-{phase.name}"[:100],
        size=recipe.size,
        block_params=recipe.block_params,
        total_params=recipe.total_params,
        vocab_size=recipe.vocab_size,
        tokenizer=recipe.tokenizer,
        sequence_length=length,
        samples=phase.samples,
        tokens=phase.samples * length,
        sources=sources,
        objective=recipe.objective,
        warnings=[
            f"phase {number} of {len(recipe.phases)} of {recipe.name!r}: the predictions are of the whole "
            "run and stand in its recipe.yaml"
        ],
        shuffle_seed=recipe.shuffle_seed + _SEEDS_APART * (number - 1),
        provenance=recipe.provenance,
    )


def phases_document(recipe: Recipe, format: str, fingerprints: dict[str, str | None]) -> Phases:
    """phases.yaml.

    Args:
        recipe: with phases.
        format: of the mixtures.
        fingerprints: of each phase's mixture, by its folder, in order.
    """
    entries = []
    before = 0
    for phase, (folder, fingerprint) in zip(recipe.phases, fingerprints.items(), strict=True):
        entries.append(
            PhaseFolder(
                name=phase.name,
                folder=folder,
                first_sample=before,
                samples=phase.samples,
                tokens=phase.samples * recipe.sequence_length,
                fingerprint=fingerprint,
            )
        )
        before += phase.samples
    return Phases(
        name=recipe.name, format=format, samples=recipe.samples, tokens=recipe.tokens, phases=entries
    )


def whole_run(recipe: Recipe) -> tuple[list[str], list[str]]:
    """What no phase sees alone: problems (caps on epochs of the whole run), and notes."""
    problems: list[str] = []
    notes: list[str] = []
    for source in recipe.sources:
        available, place = _available(recipe, source)
        problems += [
            f"source {source.name!r}, in all phases together: {problem}"
            for problem in cap_problems(source, available, place)
        ]
        if note := _drawn_anew(recipe, source, available):
            notes.append(note)
    return problems, notes + _uneven_shares(recipe)


def _available(recipe: Recipe, source: RecipeSource) -> tuple[int, str]:
    """Samples of the source, as its index says where it lies here, else as the recipe does."""
    if source.mds is not None and not is_url(source.mds):
        try:
            return count_tokens(Path(source.mds)).samples, source.mds
        except InputError:  # the formats that need it say so
            pass
    return max(round(source.tokens_available / recipe.sequence_length), 1), "the recipe (tokens_available)"


def _drawn_anew(recipe: Recipe, source: RecipeSource, available: int) -> str | None:
    """Phases draw independently of each other, so a source of which no phase has an epoch is not read evenly.

    With parts f_i of an epoch, a sample is in none of them with probability Π(1 − f_i).
    """
    parts = [phase.choose.get(source.name, 0) / available for phase in recipe.phases]
    drawn = [part for part in parts if part > 0]
    if len(drawn) < 2 or max(drawn) >= 1:
        return None
    never = 1.0
    for part in drawn:
        never *= 1 - part
    distinct = available * (1 - never)
    at_best = min(source.choose, available)
    return (
        f"source {source.name!r}: each phase draws its own samples at random, so about {distinct:,.0f} "
        f"different ones of the {available:,} are read, where a single phase would read {at_best:,}"
    )


def _uneven_shares(recipe: Recipe) -> list[str]:
    """The laws take a task's source as evenly spread over the run."""
    changing = []
    for source in recipe.sources:
        shares = [phase.choose.get(source.name, 0) / phase.samples for phase in recipe.phases]
        if source.role == "rare" and max(shares) - min(shares) > 0.01 * source.share:
            shown = ", ".join(
                f"{share:.3%} in {phase.name}" for phase, share in zip(recipe.phases, shares, strict=True)
            )
            changing.append(f"{source.name} ({shown})")
    if not changing:
        return []
    return [
        "the recipe's predictions take every rare source as evenly spread over the whole run, which with "
        f"these phases it is not: {'; '.join(changing)}"
    ]
