"""Trackers: told before a run starts when missing, continued with the run, never in a run's way."""

from __future__ import annotations

import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from mixplan.calibrate import trackers
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.spec_training import Tracking
from mixplan.errors import InputError


def spec(names: list[str]) -> CalibrationSpec:
    return CalibrationSpec.model_validate({
        "corpus": {"paths": ["text"]},
        "ladder": ["cpu_8k"],
        "horizons": {"tokens": [1024]},
        "tasks": [{"family": "comparison", "complexities": [8], "frequencies": [0.001]}],
        "tracking": {"trackers": names},
    })  # fmt: skip


def opened(names: list[str], folder: Path, warn: trackers.Warn | None = None) -> trackers.Tracker:
    def no_warning(text: str) -> None:
        raise AssertionError(text)

    tracking = Tracking.model_validate({"trackers": names, "project": "rare-skills"})
    config = {"seed": 0, "shape": {"layers": 2}}
    return trackers.open_trackers(
        tracking, "ladder", "cpu_8k-s0", "0123456789ab", config, folder, warn or no_warning
    )


class FakeRuns(types.ModuleType):
    """A module with the part of W&B's and trackio's interface that is used; keeps what it was told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.util.spec_from_loader(name, None)
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.fails = False

    def init(self, **settings: Any) -> FakeRuns:
        self.inits.append(settings)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails:
            raise ConnectionError("no route to host")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeRuns]:
    made = {name: FakeRuns(name) for name in ("wandb", "trackio")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_nothing_is_tracked_by_default(tmp_path: Path) -> None:
    assert spec([]).tracking.trackers == []
    trackers.check_trackers(spec([]))
    tracker = opened([], tmp_path)
    assert isinstance(tracker, trackers.NullTracker)
    tracker.log(1, {"loss": 1.0})
    tracker.close()


def test_missing_trackers_are_told_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wandb, mlflow, not installed here: pip install 'mixplan\[wandb,"):
        trackers.check_trackers(spec(["wandb", "mlflow"]))


def test_unknown_and_repeated_trackers_are_refused() -> None:
    for names in (["tensorboard"], ["wandb", "wandb"]):
        with pytest.raises(ValueError):
            spec(names)


def test_a_continued_run_continues_its_tracker_runs(fake: dict[str, FakeRuns], tmp_path: Path) -> None:
    trackers.check_trackers(spec(["wandb", "trackio"]))
    for step in (10, 20):
        tracker = opened(["wandb", "trackio"], tmp_path)
        tracker.log(step, {"loss": 2.0 / step, "gone": math.nan})
        tracker.close()
    for module in fake.values():
        first, second = module.inits
        assert first == second, "the same identity, or the run is split in two"
        assert first["resume"] == "allow" and first["project"] == "rare-skills"
        assert first["config"] == {"seed": 0, "shape": {"layers": 2}}
        assert module.logged == [(10, {"loss": 0.2}), (20, {"loss": 0.1})]
        assert module.finished == 2
    assert fake["wandb"].inits[0]["id"] == fake["trackio"].inits[0]["name"] == "cpu_8k-s0-01234567"


def test_a_failing_tracker_is_dropped_and_told_once(fake: dict[str, FakeRuns], tmp_path: Path) -> None:
    told: list[str] = []
    tracker = opened(["wandb", "trackio"], tmp_path, told.append)
    tracker.log(1, {"loss": 3.0})
    fake["wandb"].fails = True
    for step in (2, 3):
        tracker.log(step, {"loss": 2.0})
    tracker.close()
    assert told == ["tracker wandb failed and is left out from here on: ConnectionError: no route to host"]
    assert [step for step, _ in fake["trackio"].logged] == [1, 2, 3]
    assert fake["trackio"].finished == 1


def test_a_tracker_that_cannot_be_opened_does_not_stop_the_run(
    fake: dict[str, FakeRuns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(**_: Any) -> None:
        raise PermissionError("not logged in")

    monkeypatch.setattr(fake["wandb"], "init", refuses)
    told: list[str] = []
    tracker = opened(["wandb"], tmp_path, told.append)
    tracker.log(1, {"loss": 3.0})
    assert len(told) == 1 and "not logged in" in told[0]


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


@pytest.mark.slow
@installed("mlflow")
def test_mlflow_keeps_one_run_over_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow  # type: ignore[import-not-found,unused-ignore]

    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for step in (10, 20):
        tracker = opened(["mlflow"], tmp_path)
        tracker.log(step, {"loss": 2.0 / step})
        tracker.close()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("rare-skills")
    (run,) = client.search_runs([experiment.experiment_id])
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [
        (10, 0.2),
        (20, 0.1),
    ]
    assert run.data.params == {"seed": "0", "shape.layers": "2"}
    assert run.info.status == "FINISHED"


@pytest.mark.slow
@installed("wandb")
def test_wandb_takes_the_calls_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (10, 20):
        tracker = opened(["wandb"], tmp_path)
        tracker.log(step, {"loss": 2.0 / step})
        tracker.close()
    kept = list((tmp_path / "wandb").glob("offline-run-*-cpu_8k-s0-01234567"))
    assert kept and all(list(folder.glob("*.wandb")) for folder in kept)


@pytest.mark.slow
@installed("trackio")
def test_trackio_keeps_one_run_over_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trackio  # type: ignore[import-not-found,unused-ignore]
    from trackio import sqlite_storage  # type: ignore[import-not-found,unused-ignore]

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path)
    for step in (10, 20):
        tracker = opened(["trackio"], tmp_path)
        tracker.log(step, {"loss": 2.0 / step})
        tracker.close()
    (run,) = trackio.Api().runs("rare-skills")
    assert run.name == "cpu_8k-s0-01234567"
