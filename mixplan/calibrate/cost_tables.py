"""The cost estimate as tables for people."""

from __future__ import annotations

from itertools import groupby

from mixplan.calibrate.cost import LadderCost, RunCost
from mixplan.documents.calibration_spec import Hardware
from mixplan.units import byte_size, duration, number

Drawn = tuple[str, list[str], list[list[str]]]


def cost_tables(cost: LadderCost, hardware: Hardware) -> list[Drawn]:
    """Title, columns and rows of: the rungs (runs that differ in the seed alone together), and the totals."""
    return [_rungs(cost), _totals(cost, hardware)]


def _rungs(cost: LadderCost) -> Drawn:
    def kind(run: RunCost) -> tuple[int, int, str]:
        return (run.block_params, run.tokens, run.kind)

    columns = [
        "rung",
        "runs",
        "block",
        "total",
        "tokens",
        "steps",
        "batch",
        "peak LR",
        "FLOPs",
        "time",
        "memory",
    ]
    rows = []
    for _, group in groupby(sorted(cost.runs, key=kind), key=kind):
        same = list(group)
        run = same[0]
        rows.append(
            [
                run.rung + (f" ({run.kind})" if run.kind else ""),
                str(len(same)),
                number(run.block_params),
                number(run.total_params),
                number(run.tokens) + (f" ({run.horizons} horizons)" if run.horizons > 1 else ""),
                str(run.steps),
                str(run.batch_sequences),
                f"{run.learning_rate:.2g}",
                f"{run.flops + run.probe_flops:.2g}",
                duration(3600 * run.hours),
                f"~{byte_size(max(run.memory_bytes, run.measuring_bytes))}",
            ]
        )
    each = "each run's own" if cost.slots_per_run == 1 else "each run's own, memory that of its first process"
    return f"{len(cost.runs)} runs; FLOPs, time and memory are {each}", columns, rows


def _totals(cost: LadderCost, hardware: Hardware) -> Drawn:
    rows = [
        ["runs", str(len(cost.runs))],
        ["training tokens", number(cost.tokens)],
        ["FLOPs", f"{cost.flops:.3g}"],
        ["slot time", duration(3600 * cost.slot_hours)],
        [_wall(cost), duration(3600 * cost.wall_hours)],
        ["money", f"{cost.money:,.2f} {cost.currency}" if hardware.price_per_slot_hour else "no price given"],
        ["disk for checkpoints, at most", f"~{byte_size(cost.checkpoint_bytes)}"],
        ["injected share of tokens", " / ".join(_shares(cost))],
    ]
    slot = f"{cost.slot}: {hardware.peak_flops_per_second:.3g} FLOP/s peak, {hardware.mfu:.0%} reached"
    return f"In all (a slot is {slot})", ["", "estimate"], rows


def _wall(cost: LadderCost) -> str:
    if cost.engine == "slurm":
        jobs = f"{cost.side_by_side} run(s) of {cost.slots_per_run} slot(s) side by side"
        return f"wall time with {jobs}, without waiting in the queue"
    several = f", {cost.slots_per_run} for each run" if cost.slots_per_run > 1 else ""
    return f"wall time on {cost.slots} slot(s){several}"


def _shares(cost: LadderCost) -> list[str]:
    return [f"{share:.1%}" for share in dict.fromkeys(run.injected_share for run in _by_kind(cost))]


def _by_kind(cost: LadderCost) -> list[RunCost]:
    """Runs that hold all cells."""
    return sorted((run for run in cost.runs if not run.kind.endswith(" alone")), key=lambda run: run.kind)
