"""Is what a trainer will get what the recipe says?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixplan.documents.loading import load_both
from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.formats_settings import FORMATS_SETTINGS
from mixplan.recipes.formats_verifying import with_formats
from mixplan.recipes.mixture_verifying import How, verify_mixture
from mixplan.recipes.olmo_core import MARKER
from mixplan.recipes.phases import PHASES
from mixplan.recipes.phases_verifying import verify_phases
from mixplan.recipes.present import check_present
from mixplan.recipes.streams import LOADER, RECIPE, STREAMS
from mixplan.recipes.verified import Verification
from mixplan.recipes.weights import WEIGHTS
from mixplan.recipes.weights_verifying import verify_weights

__all__ = ["How", "Verification", "verify"]


def verify(
    folder: Path,
    how: How = How(),  # noqa: B008 frozen
    progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Check what `emit` wrote, and compare it with its recipe.

    Args:
        folder: what `emit` wrote: a mixture, token files for OLMo-core, weights, or one of these a phase.
        how: how thoroughly, and as which trainer.
        progress: called with a line now and then.

    Returns:
        The counts, with every reason why they are not what the recipe says in `problems`.

    Raises:
        InputError: the folder is no emitted mixture, what emit wrote there is missing or broken, or `how`
            asks for something that does not apply to it.
    """
    how.check()
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that `mixplan emit -o` wrote")
    check_present(folder)
    if (folder / PHASES).is_file():
        return verify_phases(folder, lambda part, tell: _verify_one(part, how, tell), progress)
    return _verify_one(folder, how, progress)


def _verify_one(folder: Path, how: How, progress: Callable[[str], None]) -> Verification:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that `mixplan emit -o` wrote")
    if (folder / STREAMS).is_file():
        found = verify_mixture(*_documents(folder), how, progress)
        found = replace(found, warnings=found.warnings + _loader_warnings(folder))
    elif (folder / MARKER).is_file():
        from mixplan.recipes.olmo_core_reading import verify_olmo_core

        how.allow_only(["--plan-only"], folder, "token files for OLMo-core")
        found = verify_olmo_core(folder, progress, hashes=not how.plan_only)
    elif (folder / WEIGHTS).is_file():
        if any((folder / name).is_file() for name in FORMATS_SETTINGS):
            how.allow_only(["--plan-only"], folder, "the weights and token files of another trainer")
        else:
            how.allow_only([], folder, "weights, and no data")
        found = verify_weights(folder)
    else:
        raise InputError(
            f"{folder} holds no {STREAMS}, {MARKER}, {PHASES} or {WEIGHTS}; `mixplan emit` writes them"
        )
    return with_formats(found, folder, not how.plan_only, progress)


def _documents(folder: Path) -> tuple[Mixture, Recipe]:
    return load_both((folder / STREAMS, Mixture), (folder / RECIPE, Recipe))


def _loader_warnings(folder: Path) -> list[str]:
    """Whether a trainer would read through another loader than the one that was verified."""
    loader = folder / LOADER
    if not loader.is_file() or loader.read_bytes() == Path(__file__).with_name(LOADER).read_bytes():
        return []
    return [
        f"{loader} is not the loader of this version, with which the mixture was read; emit again to get it"
    ]
