"""The grid: unique instances and gaps as axes, symbols of either mode, single cells, probe tasks."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mixplan.calibrate.tasks import Task, dependence_cells, make_cells, make_probe_tasks, reserved_symbols
from mixplan.calibrate.tasks.base import chance
from mixplan.documents import Table
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError
from mixplan.laws.evidence import standard_rows

HERE = Path(".")


def grid(family: str, complexity: int, **more: Any) -> dict[str, Any]:
    return {"family": family, "complexities": [complexity], "frequencies": [1e-3], **more}


def spec(*tasks: dict[str, Any], **changes: Any) -> CalibrationSpec:
    small = {"retention": {"replicas": 2, "at_fractions": [0.2, 0.4, 0.6]}}
    whole = {
        "corpus": {"paths": ["x"]},
        "ladder": ["cpu_8k"],
        "horizons": {"tokens": [10000]},
        "tasks": list(tasks) or [grid("table_lookup", 4)],
        "probes": small,
    }
    return CalibrationSpec.model_validate({**whole, **changes})


def cells_of(s: CalibrationSpec, seed: int = 0, only: str | None = None):
    return make_cells(s, seed, 0, 257, HERE, None, only)


def tokens(task: Task) -> set[int]:
    found = (*task.train, *task.test)
    return {t for i in found for t in (*i.prompt, *chain(*i.choices))}


def test_unique_instances_and_gaps_are_axes_and_names_stay() -> None:
    made = cells_of(spec(grid("table_lookup", 4, unique_instances=[8, 32], gaps_steps=[1, 64])))
    found = [(c.task.name, c.gap_steps, len(c.task.train), c.protocol) for c in made]
    assert found == [
        ("table_lookup-4@0.001~u8", 1, 8, "8 unique instances"),
        ("table_lookup-4@0.001~u8~g64", 64, 8, "gap 64 steps, 8 unique instances"),
        ("table_lookup-4@0.001~u32", 1, 32, "standard"),
        ("table_lookup-4@0.001~u32~g64", 64, 32, "gap 64 steps"),
    ]
    (plain,) = cells_of(spec(grid("table_lookup", 4)))
    assert (plain.task.name, plain.protocol, plain.gap_steps) == ("table_lookup-4@0.001", "standard", 1)


def test_unique_instances_are_a_seeded_sample_of_the_training_instances() -> None:
    s = spec(grid("comparison", 8, unique_instances=[10]))
    (cell,), (again,), (other,) = cells_of(s), cells_of(s), cells_of(s, seed=1)
    assert cell == again and cell != other
    assert len(set(cell.task.train)) == 10 and not set(cell.task.train) & set(cell.task.test)
    assert len(cell.task.test) == 28


def test_facts_that_are_not_taught_are_not_asked_for() -> None:
    (cell,) = cells_of(spec(grid("associative_recall", 64, unique_instances=[16])))
    assert len(cell.task.train) == 16 and set(cell.task.test) == set(cell.task.train)


def test_more_unique_instances_than_there_are() -> None:
    with pytest.raises(InputError) as error:
        cells_of(
            spec(grid("table_lookup", 4, unique_instances=[33]), grid("comparison", 4, unique_instances=[50]))
        )
    assert len(error.value.problems) == 2
    assert "33 unique instances asked for, but it has 32 to train on" in error.value.problems[0]


@pytest.mark.parametrize(
    ("injection", "even", "gap"),
    [
        ({"spacing": "poisson"}, "poisson", "gap 64 steps, poisson"),
        ({"placement": "start"}, "start", "gap 64 steps, start"),
        (
            {"spacing": "poisson", "placement": "aligned"},
            "poisson, aligned",
            "gap 64 steps, poisson, aligned",
        ),
    ],
)
def test_the_protocol_names_the_injection(injection: dict[str, str], even: str, gap: str) -> None:
    made = cells_of(spec(grid("comparison", 4, gaps_steps=[1, 64]), injection=injection))
    assert [cell.protocol for cell in made] == [even, gap]
    # A ladder can be fitted: by the cells without a gap.
    protocols = Table({
        "protocol": np.array([cell.protocol for cell in made], dtype=object),
        **{name: np.array(["x", "y"]) for name in ("run_id", "family", "complexity", "task", "frequency")},
    })  # fmt: skip
    kept, _ = standard_rows(protocols, "learning")
    assert list(kept["protocol"]) == [even]


def test_the_same_cell_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"more than once: comparison-4@0\.001"):
        spec(grid("comparison", 4), grid("comparison", 4))


def test_one_cell_alone_is_what_it_is_beside_the_others() -> None:
    s = spec(grid("comparison", 4), grid("parity", 2), grid("table_lookup", 4))
    for cell in cells_of(s, 3):
        (alone,) = cells_of(s, 3, only=cell.task.name)
        assert alone.task == cell.task and alone.frequency == cell.frequency
        assert (alone.protocol, cell.protocol) == ("alone", "standard")
    with pytest.raises(ValueError, match="no cell is called 'x'"):
        cells_of(s, only="x")


def test_dependence_cells_are_spread_over_the_standard_grid() -> None:
    own = {"family": "table_lookup", "complexities": [4, 6, 9], "frequencies": [6e-3, 1.5e-3, 4e-4]}
    uncommon = grid("comparison", 4, gaps_steps=[64])
    s = spec(own, uncommon, dependence={"cells": 3})
    assert dependence_cells(s) == ["table_lookup-4@0.006", "table_lookup-6@0.0015", "table_lookup-9@0.0004"]
    assert dependence_cells(spec(own, dependence={"cells": 1})) == ["table_lookup-6@0.0015"]
    assert len(set(dependence_cells(spec(own, dependence={"cells": 50})))) == 9
    assert dependence_cells(spec(own)) == []
    all_of_them = grid("table_lookup", 4, unique_instances=[8, 32])
    assert dependence_cells(spec(all_of_them, dependence={})) == ["table_lookup-4@0.001~u32"]
    with pytest.raises(InputError, match="no cell of the grid has all its instances and no gap"):
        dependence_cells(spec(uncommon, dependence={}))


def test_each_injection_of_the_retention_probe_has_tasks_of_its_own() -> None:
    s = spec(grid("comparison", 4, gaps_steps=[1, 8]))
    injections = make_probe_tasks(s, 0, 257)
    assert [len(tasks) for tasks in injections] == [2, 2, 2]
    assert injections[1][0].name == "probe-table_lookup-3-1.0"
    tasks = [cell.task for cell in cells_of(s)] + list(chain(*injections))
    assert len({task.name for task in tasks}) == 8
    used = [tokens(task) for task in tasks]
    assert set().union(*used) == set(range(257, 257 + reserved_symbols(s)))
    assert sum(map(len, used)) == reserved_symbols(s)
    assert make_probe_tasks(spec(probes={"retention": None}), 0, 257) == []


def existing(**changes: Any) -> CalibrationSpec:
    return spec(grid("comparison", 4), grid("parity", 2), symbols="existing", **changes)


def test_existing_symbols_are_ordinary_tokens_drawn_once_by_the_seed() -> None:
    s = existing()
    assert reserved_symbols(s) == 0
    draws = []
    for seed in (0, 0, 1):
        tasks = [cell.task for cell in cells_of(s, seed)] + list(chain(*make_probe_tasks(s, seed, 257, HERE)))
        used = [tokens(task) for task in tasks]
        assert set().union(*used) <= set(range(256)) and len(set().union(*used)) == sum(map(len, used))
        draws.append(used)
    assert draws[0] == draws[1] != draws[2]


def test_existing_symbols_of_a_tokenised_corpus_leave_out_its_end_of_document() -> None:
    kind = {"kind": "none", "vocab_size": 95, "end_of_document_id": 7}
    s = existing(tokenizer=kind, probes={"retention": {"replicas": 4, "at_fractions": [0.5]}})
    for seed in range(5):
        tasks = [cell.task for cell in cells_of(s, seed)] + list(chain(*make_probe_tasks(s, seed, 95, HERE)))
        assert 7 not in set().union(*map(tokens, tasks)) < set(range(95))


def test_existing_symbols_of_a_tokenizer_folder_are_not_special(tmp_path: Path) -> None:
    special = [
        {"content": "<|endoftext|>", "id": 3, "special": True},
        {"content": "<pad>", "id": 120, "special": True},
        {"content": "  ", "id": 121, "special": False},
    ]
    words = {f"w{n}": n for n in range(100) if n not in (3, 50)}
    written = {"model": {"type": "WordLevel", "vocab": words}, "added_tokens": special}
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    s = existing(
        tokenizer={"kind": "huggingface", "path": "."},
        probes={"retention": {"replicas": 6, "at_fractions": [0.5]}},
    )
    found: set[int] = set()
    for seed in range(30):
        for cell in make_cells(s, seed, 0, 122, tmp_path, None):
            found |= tokens(cell.task)
        for task in chain(*make_probe_tasks(s, seed, 122, tmp_path)):
            found |= tokens(task)
    assert found == (set(words.values()) | {121})
    with pytest.raises(ValueError, match=r"folder of calibration\.yaml"):
        make_probe_tasks(s, 0, 122)


def test_too_few_existing_tokens() -> None:
    s = existing(probes={"retention": {"replicas": 20, "at_fractions": [0.2, 0.4]}})
    with pytest.raises(InputError) as error:
        cells_of(s)
    need = 6 + 4 + 2 * 20 * 14
    assert f"need {need} different symbols (10 in the grid and 560 in the retention probe)" in str(
        error.value
    )
    assert "the vocabulary has 256 ordinary tokens; set `symbols: reserved`" in str(error.value)
    with pytest.raises(InputError, match="different symbols"):
        make_probe_tasks(s, 0, 257, HERE)


def test_the_probe_needs_a_complexity_that_its_family_allows() -> None:
    with pytest.raises(ValidationError, match="at least 8 for associative_recall"):
        spec(probes={"retention": {"family": "associative_recall"}})


def test_a_grid_needs_complexities_that_its_family_allows() -> None:
    with pytest.raises(ValidationError, match=r"at most 16 for parity .* given 17"):
        spec(grid("parity", 17))
    assert np.isclose(chance(cells_of(spec(grid("parity", 2)))[0].task.test), 0.5)
