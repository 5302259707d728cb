"""What one run writes down: every probe at its time, and empty fields where there is nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from ladders import TINY, write_ladder

from mixplan.calibrate.distributed import World
from mixplan.calibrate.prepared import prepare
from mixplan.calibrate.training import Run
from mixplan.documents import CalibrationSpec, load

STEPS, TOKENS = 40, 256


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of 40 steps of 256 tokens, with a branch that ends after 20."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ladder")
    tasks = [
        {"family": "comparison", "complexities": [6], "frequencies": [0.01], "gaps_steps": [1, 8]},
        {"family": "modular_addition", "complexities": [5], "frequencies": [1e-4]},
    ]
    probes = {
        "evaluations": 4,
        "lm_loss_tokens": 512,
        "retention": {"at_fractions": [0.25, 0.5], "instances": 4, "burst_steps": 2, "replicas": 2,
                      "delays_steps": [0, 4, 16, 32]},
        "interference": {"points": 2, "batch_sequences": 4},
        "features": {"points": 2, "contexts": 2},
    }  # fmt: skip
    path = write_ladder(
        folder, ladder=[TINY], horizons={"tokens": [20 * TOKENS, STEPS * TOKENS]}, tasks=tasks, probes=probes
    )
    prepared, _ = prepare(load(path, CalibrationSpec), folder, folder / "out")
    (spec,) = prepared.runs()
    made = Run(prepared, prepared.folder(spec), World("cpu", threading.Event()))
    made.train()
    return made


def rows(run: Run, table: str) -> list[dict[str, Any]]:
    return [entry["row"] for entry in run.folder.rows() if entry["kind"] == table]


def test_every_probe_measures_at_its_time(run: Run) -> None:
    assert sorted({row["step"] for row in rows(run, "learning")}) == [10, 20, 30, 40]
    assert sorted({row["tokens"] / TOKENS for row in rows(run, "interference")}) == [10, 30]
    assert sorted({row["tokens"] / TOKENS for row in rows(run, "features")}) == [20, 40]
    ends = {(row["step"], row["decayed"]) for row in rows(run, "learning")}
    assert ends == {(10, 0), (20, 1), (30, 0), (40, 1)}


def test_injections_have_series_of_their_own_and_say_where_the_rate_decays(run: Run) -> None:
    found = rows(run, "retention")
    series = {(row["injected_at_tokens"] / TOKENS, row["delay_tokens"] / TOKENS) for row in found}
    # Injected by steps 10 and 11, and 20 and 21; delays beyond the end of the run are left out.
    assert series == {(12, 0), (12, 4), (12, 16), (22, 0), (22, 4), (22, 16)}
    tasks = {row["injected_at_tokens"]: row["task"] for row in found}
    assert len({row["task"] for row in found}) == 4 and len(set(tasks.values())) == 2
    # The rate decays over the last 4 of 40 steps.
    decaying = {
        (row["injected_at_tokens"] / TOKENS, row["delay_tokens"] / TOKENS): row["decaying"] for row in found
    }
    assert [at for at, yes in decaying.items() if yes] == [(22, 16)]


def test_cells_say_how_they_were_injected(run: Run) -> None:
    last = [row for row in rows(run, "learning") if row["step"] == STEPS]
    by_protocol = {(row["family"], row["protocol"]): row for row in last}
    even = by_protocol["comparison", "standard"]
    assert even["gap_tokens"] == 0
    assert even["exposures_per_instance"] == even["exposures"] / even["train_instances"] > 1
    assert by_protocol["comparison", "gap 8 steps"]["gap_tokens"] == 8 * TOKENS
    assert {row["protocol"] for row in rows(run, "interference")} == {"standard", "gap 8 steps"}


def test_a_cell_that_the_batch_does_not_hold_has_no_own_part(run: Run) -> None:
    found = rows(run, "interference")
    rare = [row for row in found if row["family"] == "modular_addition"]
    held = [row for row in found if row["protocol"] == "standard" and row["family"] == "comparison"]
    # One instance in 10,240 tokens: hardly in one of these batches; 2.5 a step: in both.
    assert [row["cosine_own"] for row in rare] == [None, None]
    assert all(-1 <= row["cosine_own"] <= 1 and row["own_grad_norm"] > 0 for row in held)
    assert "NaN" not in run.folder.metrics.read_text(encoding="utf-8")


@pytest.mark.parametrize(("placement", "tokens"), [("anywhere", 8), ("aligned", 8), ("start", 0)])
def test_questions_stand_where_instances_do(tmp_path: Path, placement: str, tokens: int) -> None:
    tasks = [{"family": "comparison", "complexities": [6], "frequencies": [0.005]}]
    probes = {"evaluations": 1, "lm_loss_tokens": 512, "retention": None, "interference": {"points": 1}}
    path = write_ladder(
        tmp_path, ladder=[TINY], tasks=tasks, probes=probes, injection={"placement": placement}
    )
    prepared, _ = prepare(load(path, CalibrationSpec), tmp_path, tmp_path / "out")
    (spec,) = prepared.runs()
    made = Run(prepared, prepared.folder(spec), World("cpu", threading.Event()))
    assert made.measuring.contexts.shape == (64, tokens)
    made.train()
    assert {row["protocol"] for row in rows(made, "learning")} == {
        "standard" if placement == "anywhere" else placement
    }


def test_features_of_every_layer(run: Run) -> None:
    found = rows(run, "features")
    kinds = {(row["family"], row["feature"], row["layer"]) for row in found}
    assert kinds == {
        (family, feature, layer)
        for family, feature in (("comparison", "order_r2"), ("modular_addition", "fourier_modes"))
        for layer in (0, 1)
    }


def test_the_time_of_the_probes_is_told(run: Run) -> None:
    done = run.folder.done()
    assert done is not None and 0 < done["probe_seconds"] < done["wall_seconds"]


def test_collected_tables_keep_their_rules(run: Run, tmp_path: Path) -> None:
    from mixplan.calibrate.collect import collect
    from mixplan.documents import read_measurements, write_measurements

    found, _ = collect(run.folder.path.parent.parent)
    write_measurements(found, tmp_path)
    back = read_measurements(tmp_path)
    assert back.features is not None and back.interference is not None
    assert len(back.features) == len(rows(run, "features"))
    assert sum(value is None for value in (row["cosine_own"] for row in back.interference.rows())) >= 2
