"""What a recipe's run has read of every source by a token count, and how often a task was met until then.

The learning law is in size, tokens T and frequency f, and was fitted to runs of one frequency throughout. A
run whose shares change (phases, a rate that is raised) is taken as the run of the constant frequency with the
same exposures, f = exposures so far ÷ T. When within the run the exposures came plays no part in that.

Shape legend: n = token counts, S = sources.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.documents.plan_parts import PlanSource
from mixplan.documents.recipe import Recipe, RecipeTask
from mixplan.recommend.mixture import effective_tokens

RAREST = 1e-300
"""Stands for a frequency of 0, whose logarithm no law can take."""
_HALF_LIFE = float(PlanSource.model_fields["repetition_half_life_epochs"].default)


def drawn(recipe: Recipe, tokens: FloatArray) -> FloatArray:
    """Tokens of every source that the run has read by each token count up to the recipe's, shape (n, S)."""
    parts = [(phase.samples, phase.choose) for phase in recipe.phases]
    if not parts:
        parts = [(recipe.samples, {source.name: source.choose for source in recipe.sources})]
    ends = np.cumsum([0, *(samples for samples, _ in parts)]) * recipe.sequence_length
    columns = [
        np.interp(
            tokens,
            ends,
            np.cumsum([0, *(choose.get(source.name, 0) for _, choose in parts)]) * recipe.sequence_length,
        )
        for source in recipe.sources
    ]
    return np.stack(columns, axis=1)


def exposures(recipe: Recipe, task: RecipeTask, read: FloatArray) -> FloatArray:
    """Instances of a task in what was read of every source, shape (n,), repeats counted for what they are
    worth fresh (arXiv 2305.16264, eq. 5). A source as a whole counts its tokens.

    Args:
        read: tokens of every source, shape (n, S).
    """
    unique = np.array([source.tokens_available for source in recipe.sources])
    density = np.array([task.density.get(source.name, 0.0) for source in recipe.sources])
    return effective_tokens(read, unique, half_lives(recipe)) @ density


def half_lives(recipe: Recipe) -> FloatArray:
    """R* of every source, in epochs, shape (S,); the plan's default where the recipe does not say."""
    return np.array([source.repetition_half_life_epochs or _HALF_LIFE for source in recipe.sources])


def frequency(recipe: Recipe, task: RecipeTask, tokens: FloatArray) -> FloatArray:
    """Exposures ÷ tokens at each token count of the planned run, shape (n,).

    Of a recipe that does not say where its tasks live, the predicted frequency, as if it held throughout.
    """
    if not task.density:
        return np.full(len(tokens), max(task.recommended.frequency, RAREST))
    return np.maximum(exposures(recipe, task, drawn(recipe, tokens)) / tokens, RAREST)
