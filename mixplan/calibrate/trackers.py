"""Optional experiment trackers (W&B, MLflow, trackio) behind one interface, with a null default.

The run folder stays the record: trackers are for watching. One that cannot be installed is found out before
any run starts; one that fails on the way is dropped with a line in the run's log, and the run goes on. A run
that is continued continues its tracker run too; steps that a kill undid are reported again, with the same
values.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.spec_training import Tracking
from mixplan.errors import InputError

Values = Mapping[str, float]
Warn = Callable[[str], None]


class Tracker(Protocol):
    """Where a run's numbers are shown."""

    def log(self, step: int, values: Values) -> None:
        """Report numbers after `step` completed steps."""
        ...

    def close(self) -> None:
        """The run is over, or this process of it."""
        ...


class NullTracker:
    """Reports nothing."""

    def log(self, step: int, values: Values) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Safe:
    """Several trackers as one that never raises; one that fails is dropped, and that is told once."""

    def __init__(self, trackers: Mapping[str, Tracker], warn: Warn) -> None:
        self._trackers, self._warn = dict(trackers), warn

    def log(self, step: int, values: Values) -> None:
        """Report to all; numbers that are not finite are left out, as not every tracker takes them."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.log(step, finite))

    def close(self) -> None:
        """Close all."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                do(tracker)
            except Exception as error:
                del self._trackers[name]
                self._warn(_dropped(name, error))


def check_trackers(spec: CalibrationSpec) -> None:
    """Every tracker that the calibration names can be imported.

    Raises:
        InputError: those that are not installed, and how to install them.
    """
    missing = [name for name in spec.tracking.trackers if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(missing)
        raise InputError(
            f"tracking.trackers names {', '.join(missing)}, not installed here: pip install "
            f"'mixplan[{extras}]', or take {'it' if len(missing) == 1 else 'them'} out"
        )


def open_trackers(
    tracking: Tracking,
    ladder: str,
    run_id: str,
    config_sha256: str,
    config: Mapping[str, Any],
    folder: Path,
    warn: Warn,
) -> Tracker:
    """The trackers of one run; the same arguments continue the same tracker runs.

    Args:
        tracking: which ones, and the project.
        ladder: name of the calibration; groups its runs.
        run_id: the run's name in its ladder.
        config_sha256: of the resolved configuration: tells the run apart from one of the same name in another
            ladder.
        config: the resolved configuration, shown beside the run.
        folder: the run's folder; W&B keeps its files there.
        warn: takes a line for the run's log.
    """
    if not tracking.trackers:
        return NullTracker()
    identity = f"{run_id}-{config_sha256[:8]}"
    opened: dict[str, Tracker] = {}
    for name in tracking.trackers:
        try:
            opened[name] = _OPENERS[name](tracking.project, ladder, identity, config, folder)
        except Exception as error:
            warn(_dropped(name, error))
    return Safe(opened, warn)


def _dropped(name: str, error: Exception) -> str:
    return f"tracker {name} failed and is left out from here on: {type(error).__name__}: {error}"


class _LoggingRun:
    """A run object of W&B or trackio: `log(values, step=…)` and `finish()`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Values) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _open_wandb(project: str, ladder: str, identity: str, config: Mapping[str, Any], folder: Path) -> Tracker:
    run = importlib.import_module("wandb").init(
        project=project,
        group=ladder,
        id=identity,
        name=identity,
        resume="allow",
        config=dict(config),
        dir=str(folder),
    )
    return _LoggingRun(run)


def _open_trackio(
    project: str, ladder: str, identity: str, config: Mapping[str, Any], folder: Path
) -> Tracker:
    run = importlib.import_module("trackio").init(
        project=project, group=ladder, name=identity, resume="allow", config=dict(config)
    )
    return _LoggingRun(run)


class _MlflowRun:
    """A run of an MLflow client: no global state, so that it disturbs no other use in the process."""

    def __init__(self, module: Any, client: Any, run_id: str) -> None:
        self._module, self._client, self._run_id = module, client, run_id

    def log(self, step: int, values: Values) -> None:
        now = int(time.time() * 1000)
        metrics = [self._module.entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


def _open_mlflow(
    project: str, ladder: str, identity: str, config: Mapping[str, Any], folder: Path
) -> Tracker:
    module = importlib.import_module("mlflow")
    client = module.MlflowClient()
    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        try:
            experiment_id = client.create_experiment(project)
        except Exception:  # another run of the ladder was faster
            experiment_id = client.get_experiment_by_name(project).experiment_id
    else:
        experiment_id = experiment.experiment_id
    found: Sequence[Any] = client.search_runs([experiment_id], f"tags.mixplan_run = '{identity}'")
    if found:
        run_id = found[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {"mixplan_run": identity, "mixplan_ladder": ladder}
        run_id = client.create_run(experiment_id, run_name=identity, tags=tags).info.run_id
        params = [module.entities.Param(key, value) for key, value in _flat(config)]
        for start in range(0, len(params), 100):  # MLflow's limit for one request
            client.log_batch(run_id, params=params[start : start + 100])
    return _MlflowRun(module, client, run_id)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested keys joined by dots, values as text of at most 500 characters."""
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", str(value)[:500]))
    return pairs


_OPENERS: dict[str, Callable[[str, str, str, Mapping[str, Any], Path], Tracker]] = {
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
    "trackio": _open_trackio,
}
