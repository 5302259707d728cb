"""Where runs run: one interface, chosen by `engine.kind`.

All state is in the run folders. An engine only starts processes that train what is not finished; the same
command, with the same engine or another, continues whatever happened before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from mixplan.calibrate.engines.resources import SLOTS_ARE_LOCAL
from mixplan.calibrate.runs import RunState
from mixplan.documents.calibration_spec import CalibrationSpec, Engine
from mixplan.errors import InputError

if TYPE_CHECKING:
    from mixplan.calibrate.prepared import Prepared

Watch = Callable[[list[RunState]], None]


@dataclass(frozen=True)
class Launched:
    """What an engine did."""

    states: list[RunState]
    """Of every run, when the engine returned."""
    queued: frozenset[str] = frozenset()
    """Runs that are with a scheduler now."""
    told: Sequence[str] = ()
    """What the user should know about how they were started."""


class Runner(Protocol):
    """An engine that is ready to run ladders: what could be checked was checked."""

    place: str
    """Where, in words."""

    def launch(self, prepared: Prepared, watch: Watch) -> Launched:
        """Start everything that is not done and not running yet, longest first.

        Args:
            prepared: the ladder.
            watch: called now and then with the state of every run, while the engine waits for them.
        """
        ...


def runner(engine: Engine, slots: int | None = None, follow: bool = False) -> Runner:
    """The engine that the calibration asks for.

    Args:
        engine: its engine section.
        slots: local: how many, instead of what the section says.
        follow: Slurm: wait until no run is queued or running any more.

    Raises:
        InputError: it cannot run here, or the options do not go together.
    """
    if engine.kind == "slurm":
        from mixplan.calibrate.engines.slurm import SlurmRunner

        if slots is not None:
            raise InputError(SLOTS_ARE_LOCAL)
        return SlurmRunner(engine, follow)
    from mixplan.calibrate.engines.local import LocalRunner

    if follow:
        raise InputError("--follow is for the Slurm engine; the local one always waits for its runs")
    return LocalRunner(engine, slots)


def with_engine(spec: CalibrationSpec, kind: str | None) -> CalibrationSpec:
    """The calibration with another kind of engine (None: as it is), checked again.

    Raises:
        InputError: no such engine, or the engine section does not fit it.
    """
    if kind is None:
        return spec
    try:
        engine = Engine.model_validate({**spec.engine.model_dump(exclude_unset=True), "kind": kind})
    except ValidationError as error:
        said = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
        raise InputError(f"--engine {kind}: {text}" for text in said) from None
    return spec.model_copy(update={"engine": engine})


@dataclass(frozen=True)
class Outcome:
    """What to tell the user at the end."""

    notes: list[str]
    problems: list[str]
    """Why the ladder is not finished although nothing runs any more."""
    results: list[str]


def outcome(prepared: Prepared, launched: Launched) -> Outcome:
    """Put what an engine did into words."""
    by: dict[str, list[str]] = {}
    for state in launched.states:
        by.setdefault(state.status, []).append(state.run_id)
    over = len(by.get("finished", []))
    notes = list(launched.told)
    for run in prepared.runs():
        notes += [f"{run.run_id}: {text}" for text in prepared.folder(run).notes()]
    if "diverged" in by:
        notes.append(f"diverged (non-finite loss), left out of the measurements: {', '.join(by['diverged'])}")
    problems = [
        f"{run}: crashed; see {prepared.out}/runs/{run}/failed.txt, then run the same command"
        for run in by.get("failed", [])
    ]
    open_runs = [run for status in ("waiting", "stopped", "running") for run in by.get(status, [])]
    elsewhere = [run for run in by.get("running", []) if run not in launched.queued]
    left = [run for run in open_runs if run not in launched.queued and run not in elsewhere]
    problems += [
        f"{run}: another process trains it (see `mixplan status {prepared.out}`)" for run in elsewhere
    ]
    if left:
        problems.append(
            f"{len(left)} run(s) were stopped before their end: {', '.join(left)}; the same command continues"
        )
    results = [f"{over} of {len(launched.states)} runs finished in {prepared.out}"]
    results.append(
        f"next: mixplan status {prepared.out}" if launched.queued else f"next: mixplan collect {prepared.out}"
    )
    return Outcome(notes, problems, results)
