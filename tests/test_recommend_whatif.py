"""`recommend --what-if`: a mixture by hand, told in the same words, with the limits it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Logistic, plan_dict, run
from pydantic import ValidationError

from mixplan.documents import Plan, load, save
from mixplan.documents.registry import validate
from mixplan.documents.whatif import WhatIf
from mixplan.errors import InputError
from mixplan.recommend import explain, headline, tables
from mixplan.recommend.whatif import WhatIfAnswer, what_if

SHARES = {"web": 0.77, "code": 0.15, "r1": 0.02, "r2": 0.06}


def ask(law: Logistic | None = None, plan: dict[str, Any] | None = None, **asked: Any) -> WhatIfAnswer:
    document = WhatIf.model_validate({"size": "cpu_33k", "tokens": 3e6, **asked})
    return what_if(Plan.model_validate(plan or plan_dict()), document, law or Logistic(), Path("."))


def test_shares_in_whole_samples_and_what_the_law_says_of_them() -> None:
    law = Logistic(spread=0.5)
    recipe = ask(law, shares=SHARES).recipe
    assert recipe.samples == int(3e6) // 128 and sum(s.choose for s in recipe.sources) == recipe.samples
    for source in recipe.sources:
        assert abs(source.choose - SHARES[source.name] * recipe.samples) <= 1
    for task in recipe.tasks:
        cells = [task.family], np.array([task.complexity]), np.array([recipe.block_params])
        now = task.recommended
        p = law.p_learned(*cells, np.array([recipe.tokens]), np.array([now.frequency]))[0]
        assert now.p_learned == pytest.approx(p) and now.p_learned_low < p < now.p_learned_high
    assert [one.role for one in recipe.candidates] == ["as asked", "natural mixture"]
    assert recipe.binds == [] and recipe.unconstrained is None
    assert "cpu_33k" in headline(recipe) and len(tables(recipe)) == 3
    assert not any(line.startswith("Size:") for line in explain(recipe))


def test_a_recommended_mixture_asked_for_says_the_same() -> None:
    best = run(plan_dict(), Logistic(spread=0.5))
    shares = {source.name: source.choose / best.samples for source in best.sources}
    again = ask(Logistic(spread=0.5), size=best.size.name, tokens=best.tokens, shares=shares)
    assert again.broken == []
    assert [source.choose for source in again.recipe.sources] == [source.choose for source in best.sources]
    assert again.recipe.tasks == best.tasks and again.recipe.cost == best.cost
    assert again.recipe.common_loss_increase_nats == best.common_loss_increase_nats


def test_rates_natural_and_exponent() -> None:
    natural = {source.name: source.share for source in ask(natural=True).recipe.sources}
    total = 1e8 + 2e7 + 3e4 + 6e4
    assert natural["web"] == pytest.approx(1e8 / total, abs=1e-4)
    rated = {source.name: source for source in ask(rates={"r1": 30, "code": 0}).recipe.sources}
    weights = {"web": 1e8, "code": 0.0, "r1": 30 * 3e4, "r2": 6e4}
    for name, weight in weights.items():
        assert rated[name].share == pytest.approx(weight / sum(weights.values()), abs=1e-4)
    tempered = {source.name: source.share for source in ask(exponent=0.3).recipe.sources}
    flat = {name: value**0.3 for name, value in (("web", 1e8), ("code", 2e7), ("r1", 3e4), ("r2", 6e4))}
    for name, weight in flat.items():
        assert tempered[name] == pytest.approx(weight / sum(flat.values()), abs=1e-4)


def test_every_broken_limit_is_named_with_its_value() -> None:
    plan = plan_dict(min_tokens=5e6)
    plan["sources"][0]["max_share"] = 0.5
    found = ask(plan=plan, tokens=4e5, shares={"web": 0.6, "r1": 0.39, "r2": 0.01})
    text = "\n".join(found.broken)
    for name in (
        "sources.web.max_share: 0.6 against 0.5",
        "sources.r1.max_epochs: 5.201 against 4",
        "constraints.max_common_loss_increase_nats: ",
        "tasks.t2.target_probability: ",
        "min_tokens: 4e+05 against 5e+06",
    ):
        assert name in text
    assert found.recipe.warnings[: len(found.broken)] == [f"breaks {one}" for one in found.broken]
    weighed = ask(plan=plan_dict(objective="value"), natural=True)
    assert weighed.broken == []  # a target that is weighed is no limit


def test_rounding_does_not_break_what_holds() -> None:
    plan = plan_dict(sequence_length=1000)
    plan["sources"][2]["max_epochs"] = 4.0  # 120 samples of 1000 tokens
    found = ask(
        plan=plan, tokens=3.0004e6, shares={"web": 0.9, "r1": 120.0 / 3000.4, "r2": 0.1 - 120.0 / 3000.4}
    )
    assert next(s for s in found.recipe.sources if s.name == "r1").choose == 120
    assert not any("sources.r1.max_epochs" in text for text in found.broken)


def test_a_size_beyond_the_plan() -> None:
    found = ask(size="cpu_74k", natural=True)
    assert found.recipe.size.name == "cpu_74k"
    assert "size 'cpu_74k' is none of those that the plan considers" in found.recipe.warnings
    own = {"name": "mine", "d_model": 32, "layers": 3, "heads": 4, "d_ffn": 128}
    assert ask(size=own, natural=True).recipe.size.layers == 3
    with pytest.raises(InputError, match="another shape in the plan"):
        ask(size={**own, "name": "cpu_33k"}, natural=True)


def test_wrong_input_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        ask(size="cpu_33", tokens=100, rates={"web": 0, "coed": 2})
    text = "\n".join(caught.value.problems)
    assert "rates: 'coed' is no source of the plan; did you mean 'code'?" in text
    assert "less than one sample of 128 tokens" in text
    assert "'cpu_33' is no preset; did you mean 'cpu_33k'?" in text
    with pytest.raises(InputError, match="all are 0"):
        ask(rates=dict.fromkeys(SHARES, 0.0))


def test_what_was_asked_for_is_nothing_that_a_limit_forces() -> None:
    recipe = ask(rates={"r2": 0.3}).recipe
    assert next(source for source in recipe.sources if source.name == "r2").rate < 0.5
    assert not any("below its natural share" in text for text in recipe.warnings)


def test_more_tokens_than_can_be_counted() -> None:
    with pytest.raises(InputError, match="tokens is 1e\\+25, at most 1e\\+18"):
        ask(natural=True, tokens=1e25)
    assert ask(natural=True, tokens=1e18).recipe.tokens > 0.99e18


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shares": {"web": 0.5, "r1": 0.3}}, "shares sum to 0.8; they must sum to 1"),
        ({}, "give exactly one of shares, rates, natural, exponent; given: none of them"),
        ({"natural": True, "exponent": 0.0}, "given: natural, exponent"),
    ],
)
def test_documents_that_ask_for_no_one_mixture(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WhatIf.model_validate({"size": "cpu_33k", "tokens": 3e6, **asked})


def test_the_document_is_known_by_its_keys(tmp_path: Path) -> None:
    document = WhatIf.model_validate({"size": "cpu_33k", "tokens": 3e6, "rates": {"r1": 20}})
    save(document, tmp_path / "mine.yaml")
    assert validate(tmp_path / "mine.yaml") == "what-if"
    assert load(tmp_path / "mine.yaml", WhatIf) == document
