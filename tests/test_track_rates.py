"""Which rate for the rest of a run, against arithmetic written out; and exposures over phases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tracking import LENGTH, SAMPLES, TOKENS, recipe, recipe_dict, source, task

from mixplan.recommend.track_exposure import drawn, exposures, frequency
from mixplan.recommend.track_rates import LONGEST, remedy

NOW = TOKENS / 4
LEFT = TOKENS - NOW


def law(needed: float):
    """p of 0.9 at the frequency `needed` of a run of TOKENS, rising with both."""

    def p(tokens: float, frequency: float) -> float:
        at = math.log(9) + 3 * math.log(frequency / needed) + math.log(tokens / TOKENS)
        return 1 / (1 + math.exp(-at)) if at > -700 else 0.0

    return p


def test_least_rate_within_the_cap():
    planned = recipe()
    often = frequency(planned, planned.tasks[1], np.array([float(TOKENS)]))[0]
    assert often == pytest.approx(0.05 * 0.01)
    found = remedy(planned, planned.tasks[1], NOW, law(1.5 * often), 0.9)
    # r2 was read for a quarter as planned: 1.5 = 0.25 + 0.75·k; below one epoch nothing is discounted
    k = (1.5 - 0.25) / 0.75
    (rate,) = found.enough.sources
    assert rate.source == "r2"
    assert rate.planned_rate == pytest.approx(1.0)
    assert rate.rate == pytest.approx(k, rel=1e-6)
    assert rate.share == pytest.approx(0.01 * k, rel=1e-6)
    assert rate.epochs == pytest.approx(1.5 * 200 * LENGTH / 1e6, rel=1e-6)
    assert found.enough.p == pytest.approx(0.9, abs=1e-6)
    assert found.most is found.beyond_caps is found.tokens is None
    # Common data give way in proportion, r1 stays, and all shares still sum to 1.
    others = {one.source: one for one in found.enough.others}
    assert set(others) == {"web", "books"}
    lost = 0.01 * (k - 1)
    assert others["web"].share == pytest.approx(0.94 - lost * 0.94 / 0.98, rel=1e-6)
    assert others["books"].share == pytest.approx(0.04 - lost * 0.04 / 0.98, rel=1e-6)
    assert found.enough.read.sum() == pytest.approx(TOKENS)


def test_a_rate_beyond_the_cap_is_said_as_such():
    planned = recipe()
    # r1: 200 samples are half an epoch; the cap is 4, so at most 8 times as much
    often = frequency(planned, planned.tasks[0], np.array([float(TOKENS)]))[0]
    found = remedy(planned, planned.tasks[0], NOW, law(9.0 * often), 0.9)
    assert found.enough is None
    (most,), (beyond,) = found.most.sources, found.beyond_caps.sources
    assert most.epochs == pytest.approx(4.0, rel=1e-6)
    assert found.most.p < 0.9
    assert beyond.epochs > 4.0
    assert found.beyond_caps.p == pytest.approx(0.9, abs=1e-6)
    # At least so much text must be read that 9 times the exposures come out after the discount.
    repeats = beyond.epochs - 1
    worth = 51_200 * (1 + 15 * (1 - math.exp(-repeats / 15)))
    assert worth * 0.1 / TOKENS == pytest.approx(9 * often, rel=1e-6)


def test_what_common_data_cannot_give_is_not_taken():
    planned = recipe()
    found = remedy(planned, planned.tasks[1], NOW, law(1.0), 0.9)
    assert found.enough is None
    assert sum(one.share for one in found.most.others) == pytest.approx(0.0, abs=1e-6)
    assert found.most.read.min() >= 0
    assert found.beyond_caps is None


def test_a_longer_run_is_offered_where_no_rate_is_enough():
    scarce = recipe_dict()
    scarce["sources"][2]["max_epochs"] = 0.5  # read up by the end of the plan
    scarce["tasks"] = [task("t", {"r1": 0.1, "r2": 0.001})]
    scarce["sources"][3]["max_epochs"] = 0.0256
    planned = recipe(**scarce)
    often = frequency(planned, planned.tasks[0], np.array([float(TOKENS)]))[0]

    def p(tokens: float, frequency: float) -> float:
        # Exposures and tokens both count.
        at = math.log(9) + 1 * math.log(frequency / often) + 2 * math.log(tokens / TOKENS / 3)
        return 1 / (1 + math.exp(-at))

    found = remedy(planned, planned.tasks[0], NOW, p, 0.9)
    assert found.enough is None and found.most is None
    # All sources stop at their caps: exposures stay, f = often·TOKENS/T, so T/TOKENS·(1/3)² … = 1
    assert found.tokens == pytest.approx(9 * TOKENS, rel=1e-6)
    assert LONGEST > 9


def test_nothing_is_offered_that_does_not_help():
    planned = recipe()
    found = remedy(planned, planned.tasks[0], NOW, lambda tokens, frequency: 0.01, 0.9)
    assert found.enough is found.most is found.beyond_caps is found.tokens is None
    assert not found.at_caps


def test_a_longer_run_needs_data_within_their_caps():
    scarce = recipe_dict()
    for one, cap in zip(scarce["sources"], (0.0256, 0.0128, 0.5, 4.0), strict=True):
        one["max_epochs"] = cap  # common data have hardly more than the plan reads
    scarce["tasks"] = [task("t", {"r1": 0.1})]
    planned = recipe(**scarce)

    def p(tokens: float, frequency: float) -> float:
        return 0.95 if tokens > 3 * TOKENS else 0.1  # length alone would do

    found = remedy(planned, planned.tasks[0], NOW, p, 0.9)
    assert found.tokens is None and found.at_caps
    room = sum(one["max_epochs"] * one["tokens_available"] for one in scarce["sources"])
    assert room < 3 * TOKENS


def test_a_rare_source_with_less_of_a_task_than_common_text_is_not_raised():
    planned = recipe(tasks=[task("t", {"r1": 0.001, "web": 0.01})])
    often = frequency(planned, planned.tasks[0], np.array([float(TOKENS)]))[0]
    found = remedy(planned, planned.tasks[0], NOW, law(1.01 * often), 0.9)
    assert found.enough is not None and found.enough.p == pytest.approx(0.9, abs=1e-6)
    assert [one.source for one in found.enough.sources] == ["web"]


def test_a_run_that_is_over_can_only_go_on():
    planned = recipe()
    often = frequency(planned, planned.tasks[1], np.array([float(TOKENS)]))[0]
    found = remedy(planned, planned.tasks[1], float(TOKENS), law(often * 2**0.5), 0.9)
    assert found.enough is found.most is found.beyond_caps is None
    # frequency stays as it is: p rises by the tokens alone, (√2)³ of them
    assert found.tokens == pytest.approx(TOKENS * 2**1.5, rel=1e-6)


def test_a_task_of_several_sources_raises_them_together():
    planned = recipe()
    often = frequency(planned, planned.tasks[2], np.array([float(TOKENS)]))[0]
    found = remedy(planned, planned.tasks[2], NOW, law(1.5 * often), 0.9)
    one, two = found.enough.sources
    assert {one.source, two.source} == {"r1", "r2"}
    assert one.rate == pytest.approx(two.rate) and one.rate > 1
    assert found.enough.frequency == pytest.approx(1.5 * often, rel=1e-6)


def test_the_order_of_sources_does_not_matter():
    planned, turned = recipe(), recipe(sources=recipe_dict()["sources"][::-1])
    often = frequency(planned, planned.tasks[2], np.array([float(TOKENS)]))[0]
    one, two = (remedy(p, p.tasks[2], NOW, law(2 * often), 0.9).enough for p in (planned, turned))
    assert {a.source: a.share for a in one.sources} == pytest.approx({a.source: a.share for a in two.sources})


def phased() -> dict:
    """r1 only in the last fifth."""
    data = recipe_dict()
    data["phases"] = [
        {"name": "stable", "samples": 16_000, "choose": {"web": 15_200, "books": 640, "r2": 160}},
        {
            "name": "anneal",
            "samples": 4_000,
            "choose": {"web": 3_600, "books": 160, "r1": 200, "r2": 40},
        },
    ]
    return data


def test_exposures_add_up_over_phases():
    planned = recipe(**phased())
    at = np.array([0.4, 0.8, 0.9, 1.0]) * TOKENS
    read = drawn(planned, at)
    assert read.sum(axis=1) == pytest.approx(at)
    assert read[:, 2] == pytest.approx(np.array([0, 0, 100, 200]) * LENGTH)
    seen = exposures(planned, planned.tasks[0], read)
    assert seen == pytest.approx(np.array([0, 0, 100, 200]) * LENGTH * 0.1)
    often = frequency(planned, planned.tasks[0], at)
    assert often[2:] == pytest.approx(seen[2:] / at[2:])
    assert (often > 0).all()


def test_a_source_that_the_rest_leaves_out_is_raised_from_nothing():
    data = phased()
    data["phases"][0]["choose"] = {"web": 14_920, "books": 640, "r1": 200, "r2": 240}
    data["phases"][1]["choose"] = {"web": 3_880, "books": 120}
    data["phases"][0]["choose"]["web"] = 14_960
    data["phases"][0]["choose"]["r2"] = 200
    data["phases"][1]["choose"] = {"web": 3_840, "books": 160}
    planned = recipe(**data)
    often = frequency(planned, planned.tasks[1], np.array([float(TOKENS)]))[0]
    found = remedy(planned, planned.tasks[1], 0.9 * TOKENS, law(1.1 * often), 0.9)
    (rate,) = found.enough.sources
    assert rate.planned_share == 0.0
    # a tenth more of 200 samples in the 2,000 that are left
    assert rate.share == pytest.approx(20 / 2_000, rel=1e-6)


def test_a_recipe_that_does_not_say_where_tasks_live():
    planned = recipe(tasks=[task("t", {})])
    assert frequency(planned, planned.tasks[0], np.array([1e5, 2e6])) == pytest.approx([1e-3, 1e-3])
    found = remedy(planned, planned.tasks[0], NOW, lambda tokens, frequency: 0.1, 0.9)
    assert not found.known


def test_repeats_count_for_what_they_are_worth():
    data = recipe_dict()
    data["sources"][2] = source("r1", 200, 6_400)
    planned = recipe(**data)
    seen = exposures(planned, planned.tasks[0], np.array([[0, 0, 25_600.0, 0]]))[0]
    assert seen == pytest.approx(0.1 * 6_400 * (1 + 15 * (1 - math.exp(-3 / 15))))
    assert SAMPLES * LENGTH == TOKENS
