"""A preset with some of its numbers changed from the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.testbed.batches import SPREAD
from mixplan.testbed.mixture import Mixture
from mixplan.testbed.parts import LONG, LONGER, Part, checked, preset


@dataclass(frozen=True)
class Changes:
    """What to change; None leaves the preset's own."""

    only: list[str] | None = None
    widths: str | None = None
    gaps: str | None = None
    seeds: int | None = None
    steps: int | None = None
    tasks: int | None = None
    block: int | None = None
    dim: int | None = None
    frequency_exponent: float | None = None
    spectrum_exponents: tuple[float, ...] | None = None


def changed(name: str, asked: Changes) -> list[Part]:
    """The parts of a preset after the changes, checked.

    Raises:
        InputError: no such preset or part, numbers that cannot be read, or parts that cannot run.
    """
    parts = preset(name)
    names = [part.name for part in parts]
    unknown = [one for one in asked.only or [] if one not in names]
    if unknown:
        raise InputError([f"preset {name} has no part {one!r}{did_you_mean(one, names)}" for one in unknown])
    problems: list[str] = []
    widths, gaps = (
        _numbers(text, what, problems) for text, what in ((asked.widths, "widths"), (asked.gaps, "gaps"))
    )
    if asked.seeds is not None and asked.seeds < 1:
        problems.append(f"seeds {asked.seeds}: at least one is needed")
    if problems:
        raise InputError(problems)
    kept = []
    for part in parts:
        if asked.only and part.name not in asked.only:
            continue
        fields: dict[str, object] = {"mixture": _mixture(part.mixture, asked)}
        if widths is not None:
            fields["widths"] = widths
        if gaps is not None and part.gaps != (SPREAD,):
            fields["gaps"] = gaps
        if asked.seeds is not None:
            fields["seeds"] = tuple(range(asked.seeds))
        if asked.steps is not None:
            fields["steps"] = asked.steps * (LONGER if part.name == LONG else 1)
        kept.append(replace(part, **fields))  # type: ignore[arg-type]
    return checked(kept)


def _mixture(own: Mixture, asked: Changes) -> Mixture:
    tasks = own.tasks if asked.tasks is None else asked.tasks
    spectra = own.spectrum_exponents if asked.spectrum_exponents is None else asked.spectrum_exponents
    if asked.spectrum_exponents is None and len(spectra) > 1 and tasks > 0:
        # A preset's mixed spectra take turns: the same turns for another number of tasks.
        spectra = tuple(spectra[task % len(spectra)] for task in range(tasks))
    return Mixture(
        tasks,
        own.block if asked.block is None else asked.block,
        own.dim if asked.dim is None else asked.dim,
        own.frequency_exponent if asked.frequency_exponent is None else asked.frequency_exponent,
        spectra,
    )


def _numbers(text: str | None, what: str, problems: list[str]) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        problems.append(f"{what} {text!r}: whole numbers separated by commas are needed, such as 2,4,8")
        return None
