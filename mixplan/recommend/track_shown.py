"""A tracked run for people: one table, and below it what to do about tasks that are not on track."""

from __future__ import annotations

from typing import Any

from mixplan.recommend.shown import percent
from mixplan.recommend.track import NOT, NOTHING, ON_TRACK, TaskTrack, Tracking
from mixplan.recommend.track_rates import LONGEST, Rates, SourceRate
from mixplan.units import number

PROMISED = 0.02
"""A probability of the recipe is shown where it differs by more from what the laws say."""


def headline(found: Tracking) -> str:
    """How far the run is, in a line."""
    part = found.tokens / found.planned_tokens
    return (
        f"{found.name}: measured up to {number(found.tokens)} of {number(found.planned_tokens)} tokens "
        + (f"({part:.0%})")
    )


def table(found: Tracking) -> tuple[str, list[str], list[list[Any]]]:
    """Title, columns and rows: the last measurement of every task against its forecast."""
    columns = ["task", "tokens", "observed", "forecast", "90 % band", "P then", "P now", "target", "verdict"]
    return "Tasks (P: probability of being learned at the end)", columns, [_row(task) for task in found.tasks]


def _row(task: TaskTrack) -> list[Any]:
    ends = [f"{task.p_then:.3f}", f"{task.p_now:.3f}", f"{task.target:g}", task.status]
    if not task.points:
        return [task.name, None, None, None, None, *ends]
    last = task.points[-1]
    said = [f"{last.observed:.3f}", f"{last.median:.3f}", f"{last.low:.2f} to {last.high:.2f}"]
    return [task.name, number(last.tokens), *said, *ends]


def advice(found: Tracking) -> list[str]:
    """What to do about each task that is not on track."""
    said = [line for task in found.tasks for line in _advice(task, found)]
    asked: dict[str, SourceRate] = {}
    for task in found.tasks:
        for one in task.remedy.enough.sources if task.remedy and task.remedy.enough else []:
            if one.source not in asked or one.share > asked[one.source].share:
                asked[one.source] = one
    several = sum(1 for task in found.tasks if task.remedy and task.remedy.enough) > 1
    if several:
        said.append(_together(list(asked.values()), found))
    return said


def _together(asked: list[SourceRate], found: Tracking) -> str:
    """All raises at once, and what is left of the sources that give way."""
    names = {one.source for one in asked}
    enough = [task.remedy.enough for task in found.tasks if task.remedy and task.remedy.enough]
    giving = {one.source: one.planned_share for rates in enough for one in rates.others}
    before = sum(share for source, share in giving.items() if source not in names)
    after = before - sum(one.share - one.planned_share for one in asked)
    others = ", ".join(source for source in giving if source not in names)
    if after < 0:
        return (
            f"all of these together cannot be had: they take {percent(before - after)} of the tokens that "
            f"are left from {others or 'others'}, which have {percent(before)}"
        )
    return f"all of these together: {_rates(asked)}; {others} from {percent(before)} to {percent(after)}"


def _advice(task: TaskTrack, found: Tracking) -> list[str]:
    lines = []
    if task.status == NOTHING:
        lines.append(f"{task.name}: not in the log, or nothing that the laws can speak about")
    if task.status != ON_TRACK and task.remedy is not None:
        lines.append(f"{task.name}: {task.status} (P = {task.p_now:.3f}): {_way(task, found)}")
    if abs(task.p_recipe - task.p_then) > PROMISED:
        lines.append(f"{task.name}: the recipe says P = {task.p_recipe:.3f}, these laws {task.p_then:.3f}")
    return lines + [f"{task.name}: {note}" for note in task.notes]


def _way(task: TaskTrack, found: Tracking) -> str:
    """What brings it to its target, from the cheapest on."""
    assert task.remedy is not None
    way = task.remedy
    if way.enough is not None:
        return (
            f"raise the rate of {_rates(way.enough.sources)} for the rest; {_gives(way.enough)}{_cost(task)}"
            f"{_harm(task)}"
        )
    if not way.known:
        return "the recipe does not say in which sources it lives; write it anew with `mixplan recommend`"
    parts = []
    if way.most is not None:
        parts.append(
            f"even {_rates(way.most.sources)}, as far as caps and common data allow, gives P = "
            f"{way.most.p:.3f} ({_gives(way.most)}{_cost(task)}){_harm(task)}"
        )
    elif found.tokens >= found.planned_tokens:
        parts.append("the run is over")
    elif way.at_caps:
        parts.append("its sources are at their caps on epochs already")
    else:
        parts.append("no change of rates in the rest of the run brings more of it")
    if way.beyond_caps is not None:
        parts.append(
            f"beyond the caps, {_rates(way.beyond_caps.sources)} would do ({_gives(way.beyond_caps)})"
        )
    if way.tokens is not None:
        parts.append(f"at the planned rates {number(way.tokens)} tokens in all would do")
    else:
        parts.append(
            f"no longer run up to {LONGEST:g} times as long does; collect more data or train a larger model"
        )
    return "; ".join(parts)


def _rates(sources: list[SourceRate]) -> str:
    return " and ".join(
        (
            f"{one.source} from {percent(one.planned_share)} to {percent(one.share)} of the tokens"
            if one.rate is None or one.planned_rate is None
            else f"{one.source} from {one.planned_rate:.3g}× to {one.rate:.3g}×"
        )
        + f" ({one.epochs:.3g} epochs by the end, cap {one.max_epochs:g})"
        for one in sources
    )


def _gives(rates: Rates) -> str:
    before, after = (sum(getattr(one, at) for one in rates.others) for at in ("planned_share", "share"))
    return f"{', '.join(one.source for one in rates.others)} from {percent(before)} to {percent(after)}"


def _cost(task: TaskTrack) -> str:
    loss = task.common_loss_increase_nats
    return "" if loss is None else f", common LM loss {loss:+.4f} nats"


def _harm(task: TaskTrack) -> str:
    """Other tasks that it would put at risk."""
    each = [f"{name} from P = {before:.3f} to {after:.3f}" for name, (before, after) in task.harmed.items()]
    return f"; but that brings {', '.join(each)}" if each else ""


def lost(found: Tracking) -> list[str]:
    """Tasks that will not be learned, for the exit."""
    return [f"{task.name}: {NOT} (P = {task.p_now:.3f}, target {task.target:g})" for task in found.lost]
