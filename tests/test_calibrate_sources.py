"""The team's own sources: mixed in at their shares, measured between two anchors, joined as skill."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ladders import TINY, mixplan, write_ladder

from mixplan.calibrate.batches import Batches
from mixplan.calibrate.collect import collect
from mixplan.calibrate.distributed import World
from mixplan.calibrate.overlap import shared
from mixplan.calibrate.prepared import Prepared, prepare
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.source_mix import SourceMix, share_schedules, source_stream
from mixplan.calibrate.source_skill import source_learning
from mixplan.calibrate.sources import byte_counter, sequences_of_run
from mixplan.calibrate.stream import BaseStream
from mixplan.calibrate.training import train
from mixplan.documents import CalibrationSpec, load, read_measurements
from mixplan.documents.calibration_spec import Injection, Tokenizer, UserSource
from mixplan.errors import InputError
from mixplan.laws.calibration import fit_calibration

NUMBERS = {"name": "numbers", "data": {"paths": ["own"], "held_out_fraction": 0.2}, "shares": [0.1]}


def write_own(folder: Path, files: int = 12, **changes: Any) -> Path:
    """A ladder with a source of digits, which the words of the base text say nothing about."""
    (folder / "own").mkdir(parents=True)
    generator = np.random.default_rng(1)
    for number in range(files):
        text = " ".join(f"{n}{n}" for n in generator.integers(0, 10, size=300))
        (folder / "own" / f"{number}.md").write_text(text)
    return write_ladder(folder, **{"ladder": [TINY], "user_sources": [NUMBERS], **changes})


def prepared_ladder(folder: Path, **changes: Any) -> tuple[Prepared, list[str]]:
    path = write_own(folder, **changes)
    return prepare(load(path, CalibrationSpec), folder, folder / "out")


def mix(shares: dict[str, float], batch: int, steps: int, seed: int) -> SourceMix:
    """Base sequences are 0…99, those of the j-th source 1000·(j + 1) and so on, all of one token."""
    base = BaseStream(np.arange(100, dtype=np.int32), 1, seed)
    streams = {
        name: source_stream(np.arange(1000 * n, 1000 * n + 30, dtype=np.int32), 1, seed, name)
        for n, name in enumerate(shares, 1)
    }
    return SourceMix(base, streams, share_schedules(shares, batch, steps, seed), batch, seed)


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0.01, 0.9), batch=st.integers(1, 9), steps=st.integers(5, 60), seed=st.integers(0, 999)
)
def test_a_share_is_kept_evenly_and_the_base_text_loses_nothing(
    share: float, batch: int, steps: int, seed: int
) -> None:
    one = mix({"own": share}, batch, steps, seed)
    rows = [one.batch(step)[:, 0] for step in range(steps)]
    own = [list(row[row >= 1000]) for row in rows]
    counts = np.array([len(row) for row in own])
    assert abs(counts.sum() - share * batch * steps) < 1
    assert set(counts) <= {np.floor(share * batch), np.ceil(share * batch)}
    assert one.share("own") == pytest.approx(counts.sum() / (batch * steps))
    assert one.seen_tokens("own", 4) == counts[:4].sum()
    assert one.epochs("own", steps) == pytest.approx(counts.sum() / 30)
    # Each pass over the source reads every sequence once; the base text is read as if nothing stood between.
    for step in range(steps):
        times = np.bincount([token - 1000 for row in own[: step + 1] for token in row], minlength=30)
        assert times.max() - times.min() <= 1
    text = [token for row in rows for token in row if token < 1000]
    plain = BaseStream(np.arange(100, dtype=np.int32), 1, seed)
    assert sorted(text) == sorted(plain.rows_at(0, len(text))[:, 0])
    # A function of the step alone.
    again = mix({"own": share}, batch, steps, seed)
    assert (again.batch(steps - 1)[:, 0] == rows[-1]).all() and (again.batch(2)[:, 0] == rows[2]).all()


def test_text_that_stands_in_another_is_found_however_both_were_cut() -> None:
    text = np.random.default_rng(0).integers(0, 256, size=300_000)
    assert shared(text[5003:9000].astype(np.uint8), text) == 1.0
    assert shared(text[:50_000], text[100_000:]) == 0.0
    half = np.concatenate([text[:20_000], np.random.default_rng(1).integers(0, 256, size=20_000)])
    assert shared(half, text) == pytest.approx(0.5, abs=0.05)
    assert shared(text[:10], text) == 0.0


def test_each_source_keeps_its_share_and_its_order_whatever_the_others() -> None:
    both, alone = mix({"a": 0.2, "b": 0.3}, 10, 40, 7), mix({"a": 0.2}, 10, 40, 7)
    read = {
        name: [t for s in range(40) for t in sorted(one.batch(s)[:, 0]) if 1000 <= t < 2000]
        for name, one in (("both", both), ("alone", alone))
    }
    assert read["both"] == read["alone"] and len(read["both"]) == 80
    assert both.share("b") == pytest.approx(0.3, abs=1 / 400)


def test_sub_samples_are_nested_and_repeat_as_often_as_planned() -> None:
    tokens = np.arange(400, dtype=np.int32)
    small, large = (set(source_stream(tokens, 4, 3, "own", keep).only) for keep in (10, 25))
    assert len(small) == 10 and len(large) == 25 and small < large
    match = {"source_tokens": 10**9, "run_tokens": 10**11}
    source = UserSource.model_validate({**NUMBERS, "match_repetition": match})
    run = RunSpec.model_construct(anchor=None, steps=1000, batch_sequences=32, sequence_length=128)
    keep = sequences_of_run(source, run, 10**6)
    assert keep == 320
    epochs_here = 0.1 * run.tokens / (keep * 128)
    assert epochs_here == pytest.approx(0.1 * 10**11 / 10**9)
    assert sequences_of_run(source, run.model_copy(update={"anchor": "numbers"}), 10**6) == 10**6


def test_what_a_run_reads_of_a_source_is_its_training_part(tmp_path: Path) -> None:
    prepared, _ = prepared_ladder(tmp_path)
    facts = prepared.facts["sources"]["numbers"]
    train_part, held_out = prepared.source("numbers", "train"), prepared.source("numbers", "held_out")
    assert (len(train_part), len(held_out)) == (facts["train_tokens"], facts["held_out_tokens"])
    ends = sum(int((part == prepared.end_of_document_id).sum()) for part in (held_out,))
    assert facts["held_out_bytes"] == len(held_out) - ends
    there = {row.tobytes() for row in np.asarray(train_part[: len(train_part) // 64 * 64]).reshape(-1, 64)}
    by_anchor = {run.anchor: run for run in prepared.runs()}
    assert set(by_anchor) == {None, "zero", "numbers"}
    for anchor, share in ((None, 0.1), ("zero", 0.0), ("numbers", 0.5)):
        run = by_anchor[anchor]
        batches = Batches(prepared, run, [], [])
        own = 0
        for step in range(run.steps):
            batch = batches.at(step)
            digits = ((batch >= ord("0")) & (batch <= ord("9"))).any(axis=1)
            own += int(digits.sum())
            assert all(row.astype(np.int32).tobytes() in there for row in batch[digits])
        assert own == round(share * run.steps * 4)


def test_bytes_of_a_real_tokenizer_are_those_of_the_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    texts = ["the cat sat on the mat, 東京 – ünïcode\n" * 3, " leading space and more text"]
    fast.train_from_iterator(texts, trainer)
    fast.save(str(tmp_path / "tokenizer.json"))
    count = byte_counter(Tokenizer(kind="huggingface", path="."), tmp_path)
    assert count is not None
    tokens = np.array([token for text in texts for token in (*fast.encode(text).ids, 0)])
    assert len(tokens) < sum(map(len, texts))
    assert count(tokens, 0) == sum(len(text.encode()) for text in texts)
    assert byte_counter(Tokenizer(kind="none", vocab_size=9, end_of_document_id=0), tmp_path) is None


SMALL_MATCH = {"source_tokens": 5000, "run_tokens": 100_000}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"paths": ["gone"]}}, r"user_sources numbers .*gone does not exist"),
        ({"data": {"paths": ["own"], "max_tokens": 50}}, "training tokens, less than one sequence"),
        ({"data": {"paths": ["text*.txt"]}}, "also stands in the training part of the corpus"),
        ({"name": "parity"}, "'parity' is a task family"),
        ({"family": "comparison"}, "'comparison' is a task family"),
        ({"name": "zero"}, "names the runs without any source"),
        ({"saturating_share": 0.98}, "nothing is left for the base text"),
        ({"shares": [0.001]}, "gives no sequence in the 160 sequences"),
        ({"match_repetition": {**SMALL_MATCH, "run_tokens": 10**7}}, "less than one sequence of 64"),
        ({"match_repetition": {**SMALL_MATCH, "source_tokens": 10**6}}, r"0\.01 epochs at share 0\.1\), but"),
    ],
)
def test_bad_sources_are_refused_before_anything_is_spent(
    tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared_ladder(tmp_path, user_sources=[{**NUMBERS, **changes}])
    assert not (tmp_path / "out").exists()


def test_matched_repetition_and_branches_exclude_each_other(tmp_path: Path) -> None:
    own = [{**NUMBERS, "match_repetition": SMALL_MATCH}]
    horizons = {"tokens": [10240, 20480]}
    with pytest.raises(InputError, match="set horizons"):
        prepared_ladder(tmp_path / "a", user_sources=own, horizons=horizons)
    prepared, _ = prepared_ladder(tmp_path / "b", user_sources=own, horizons={**horizons, "branches": False})
    for run in prepared.runs():
        if run.anchor is None:
            batches = Batches(prepared, run, [], [])
            # 0.1 · 100,000 ÷ 5,000 = 2 epochs in the plan, whatever the proxy's length.
            assert batches.mix.epochs("numbers", run.steps) == 2


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rungs, two shares, two seeds, trained and collected."""
    folder = tmp_path_factory.mktemp("sources")
    own = [{**NUMBERS, "shares": [0.05, 0.2], "family": "digits"}]
    shapes = [TINY, {**TINY, "name": "wide", "d_model": 16}]
    tasks = [{"family": "comparison", "complexities": [6], "frequencies": [0.01]}]
    probes = {"evaluations": 3, "lm_loss_tokens": 2048, "retention": None, "interference": None}
    training = {"batch_sequences": 4, "learning_rate_multiplier": 1.0}
    prepared, _ = prepared_ladder(
        folder,
        user_sources=own,
        ladder=shapes,
        tasks=tasks,
        seeds=[0, 1],
        probes={**probes, "features": None},
        training=training,
    )
    for run in prepared.runs():
        train(prepared.out, run.run_id, 1, World("cpu", threading.Event()))
    done = mixplan("collect", prepared.out)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_sources_become_skill_between_the_anchors(measured: Path) -> None:
    m = read_measurements(measured / "out" / "measurements")
    assert m.sources is not None
    assert len(m.sources) == 2 * 2 * 4 * 3
    facts = Prepared.read(measured / "out").facts["sources"]["numbers"]
    per_byte = facts["held_out_tokens"] / facts["held_out_bytes"] / np.log(2)
    assert m.sources["bits_per_byte"] == pytest.approx(m.sources["nats_per_token"] * per_byte)
    learned = m.learning.where(m.learning["family"] == "digits")
    assert set(learned["task"]) == {"numbers@0.05", "numbers@0.2"}
    last = learned.where(learned["tokens"] == 10240)
    assert len(last) == 2 * 2 * 2
    assert sorted(set(last["frequency"])) == [0.05, 0.2]
    assert sorted(set(last["exposures"])) == [512.0, 2048.0]
    for row in last.rows():
        by_anchor = {
            one["anchor"]: one["bits_per_byte"]
            for one in m.sources.rows()
            if (one["rung"], one["seed"], one["tokens"]) == (row["rung"], row["seed"], row["tokens"])
            and one["anchor"]
        }
        gap = by_anchor["zero"] - by_anchor["numbers"]
        assert row["gap_closed"] == pytest.approx((by_anchor["zero"] - row["bits_per_byte"]) / gap)
        assert row["skill"] == row["accuracy"] == pytest.approx(np.clip(row["gap_closed"], 0, 1))
    # Four times the share closes more of the gap, for both sizes and seeds.
    assert min(last["skill"][last["frequency"] == 0.2]) > max(last["skill"][last["frequency"] == 0.05])
    # Cells come from runs with base text and at most a share of the source; not from the saturated ones.
    cells = m.learning.where(m.learning["family"] == "comparison")
    assert not any("only" in run for run in cells["run_id"])
    assert {run.rsplit("-", 1)[1] for run in cells["run_id"]} == {"v0", "v1", "zero"}
    # The common-loss law learns from base text alone: other runs read less of it in as many tokens.
    with_loss = np.isfinite(m.learning["lm_loss"])
    assert {run.rsplit("-", 1)[1] for run in m.learning["run_id"][with_loss]} == {"zero"}


@pytest.mark.slow
def test_the_laws_take_a_source_like_a_task(measured: Path) -> None:
    m = read_measurements(measured / "out" / "measurements")
    fitted = fit_calibration(m, draws=20)
    assert {(task.family, task.complexity) for task in fitted.tasks} == {("digits", 1), ("comparison", 6)}
    # In a ladder with another placement too: sources share whatever protocol its cells have in common.
    prepared = Prepared.read(measured / "out")
    runs = [
        (run, [row for row in prepared.folder(run).rows() if row["kind"] == "sources"])
        for run in prepared.runs()
    ]
    placed = prepared.spec.model_copy(update={"injection": Injection(placement="start")})
    rows, _ = source_learning(placed, runs)
    assert {row["protocol"] for row in rows} == {"start"}


@pytest.mark.slow
def test_a_missing_anchor_and_a_closed_gap_leave_rows_out_with_a_note(measured: Path) -> None:
    prepared = Prepared.read(measured / "out")
    runs = [
        (run, [row for row in prepared.folder(run).rows() if row["kind"] == "sources"])
        for run in prepared.runs()
    ]
    everything, _ = source_learning(prepared.spec, runs)
    without = [(run, rows) for run, rows in runs if not (run.anchor == "zero" and run.seed == 1)]
    rows, notes = source_learning(prepared.spec, without)
    assert {row["seed"] for row in rows} == {0}
    assert len(rows) <= len(everything)
    assert any("no finished run at share zero" in note and "tiny seed 1" in note for note in notes)

    def moved(row: dict, to: float) -> dict:
        return {**row, "row": {**row["row"], "bits_per_byte": to}}

    same = [(run, [moved(row, 5.0) for row in rows]) for run, rows in runs]
    rows, notes = source_learning(prepared.spec, same)
    assert rows == []
    assert any("skill is not defined" in note for note in notes)
    # 0.1 bits apart with one seed and 0.3 with the other: 0.2 ± 0.14, which twice the spread covers.
    noisy = [
        (run, [moved(row, 5.0 + (0.3 if run.seed else 0.1) * (run.anchor == "zero")) for row in rows])
        for run, rows in runs
    ]
    assert [row["seed"] for row in source_learning(prepared.spec, noisy)[0]] == []


@pytest.mark.slow
def test_held_out_text_of_the_source_is_learned_from_the_source(measured: Path) -> None:
    """Not from the base text: what a run at share zero says of digits is no better than at the start."""
    m, _ = collect(measured / "out")
    assert m.sources is not None
    last = m.sources.where(m.sources["tokens"] == 10240)
    zero = last["bits_per_byte"][np.array([a == "zero" for a in last["anchor"]])]
    saturated = last["bits_per_byte"][np.array([a == "numbers" for a in last["anchor"]])]
    assert zero.min() > saturated.max() + 1
