"""The Slurm engine: one array job, through submitit, of everything that is not finished.

OUT/slurm/submissions.json   which runs were handed to Slurm, under which job name, in array order
OUT/slurm/lock               held while jobs are looked up and submitted
OUT/slurm/*                  submitit's own files and Slurm's messages

Whether a job is still queued or running is asked of squeue by job name, so that neither accounting nor the
answer of sbatch is needed: a command that was killed between sbatch and its note submits nothing twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixplan.calibrate import lease
from mixplan.calibrate.engines import Launched, Watch
from mixplan.calibrate.engines.resources import slurm_resources
from mixplan.calibrate.engines.slurm_job import TrainRun
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.runs import RunSpec
from mixplan.documents.atomic import write_json
from mixplan.documents.calibration_spec import Engine
from mixplan.errors import InputError, NoAnswer

_POLL_SECONDS = 2.0
_ASK_EVERY_SECONDS = 15.0
"""How often `--follow` asks Slurm whether jobs are left; progress is read from files in between."""
_REQUEUES = 100_000
"""Time-outs after which submitit would give a run up: never."""
_COMMANDS = ("sbatch", "squeue", "scontrol", "srun")


class SlurmRunner:
    """Hands a ladder to Slurm.

    Args:
        engine: the calibration's engine section.
        follow: wait until no run is queued or running any more.

    Raises:
        InputError: submitit or Slurm's commands are missing here.
    """

    def __init__(self, engine: Engine, follow: bool) -> None:
        problems = []
        try:
            import submitit  # noqa: F401
        except ImportError:
            problems.append(
                "engine slurm needs submitit, which is not installed: pip install 'mixplan[slurm]'"
            )
        missing = [name for name in _COMMANDS if shutil.which(name) is None]
        if missing:
            problems.append(
                f"engine slurm needs Slurm's {', '.join(missing)}, not found here; run this on the cluster's "
                "login node, or use --engine local"
            )
        if problems:
            raise InputError(problems)
        self.engine, self.follow = engine, follow
        gpus, cpus = slurm_resources(engine)
        self.place = f"Slurm ({gpus} GPU(s) and {cpus} core(s) a run)"

    def launch(self, prepared: Prepared, watch: Watch) -> Launched:
        """Submit what is neither done nor with Slurm nor being trained; wait for it only with `follow`."""
        folder = prepared.out / "slurm"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = queued(prepared.out)
            waiting = [run for run in prepared.runs() if prepared.folder(run).done() is None]
            new = [
                run
                for run in waiting
                if run.run_id not in before and not lease.held(prepared.folder(run).path)
            ]
            told = [f"{len(before)} run(s) are with Slurm already"] if before else []
            if new:
                told.append(f"{len(new)} run(s) submitted to Slurm as job {self._submit(prepared, new)}")
        while self.follow and self._unfinished(prepared):
            asked = time.monotonic()
            if not queued(prepared.out):
                break
            while self._unfinished(prepared) and time.monotonic() - asked < _ASK_EVERY_SECONDS:
                watch([prepared.folder(run).state() for run in prepared.runs()])
                time.sleep(_POLL_SECONDS)
        states = [prepared.folder(run).state() for run in prepared.runs()]
        watch(states)
        left = {state.run_id for state in states if state.status not in ("finished", "diverged", "failed")}
        return Launched(states, frozenset(queued(prepared.out) & left), told)

    def _unfinished(self, prepared: Prepared) -> bool:
        return any(
            prepared.folder(run).state().status in ("waiting", "running", "stopped")
            for run in prepared.runs()
        )

    def _submit(self, prepared: Prepared, runs: list[RunSpec]) -> str:
        """Submit the runs, in this order, and return the job's id."""
        import submitit

        out = prepared.out.resolve()
        folder = out / "slurm"
        submissions = _submissions(prepared.out)
        name = f"mixplan-{hashlib.sha256(str(out).encode()).hexdigest()[:8]}-{len(submissions)}"
        note: dict[str, Any] = {"name": name, "job": None, "runs": [run.run_id for run in runs]}
        for run in runs:
            (prepared.folder(run).path / "failed.txt").unlink(missing_ok=True)
        # Before sbatch: a command that is killed after it must find its jobs again.
        write_json(folder / "submissions.json", [*submissions, note])
        slurm = self.engine.slurm
        gpus, cpus = slurm_resources(self.engine)
        given = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos}
        parameters: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if slurm.mem_gb is not None:
            parameters["mem"] = f"{round(slurm.mem_gb * 1024)}MB"
        if gpus:
            parameters["gpus_per_node"] = gpus
        extra = {key: value for key, value in {"requeue": True, **slurm.extra}.items() if value is not False}
        jobs = [
            TrainRun(
                str(out),
                run.run_id,
                "cuda" if gpus else "cpu",
                self.engine.threads_per_slot,
                self.engine.processes_per_run,
                slurm.signal_seconds,
            )
            for run in runs
        ]
        executor = submitit.SlurmExecutor(folder, max_num_timeout=_REQUEUES)
        executor.update_parameters(
            job_name=name,
            time=slurm.time_minutes,
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=cpus,
            signal_delay_s=slurm.signal_seconds,
            array_parallelism=slurm.max_parallel or len(runs),
            setup=list(slurm.setup),
            additional_parameters=extra,
            **parameters,
        )
        try:
            with _outside_of_any_job(), executor.batch():
                handed = [executor.submit(job) for job in jobs]
        except submitit.core.utils.FailedJobError as error:
            write_json(folder / "submissions.json", submissions)
            raise InputError(f"sbatch refused: {' '.join(str(error).split())}") from None
        note["job"] = handed[0].job_id.split("_")[0]
        write_json(folder / "submissions.json", [*submissions, note])
        return note["job"]


def queued(out: Path) -> set[str]:
    """The runs of a ladder that are queued or running in Slurm.

    Raises:
        NoAnswer: Slurm does not answer.
    """
    submissions = {one["name"]: one["runs"] for one in _submissions(out)}
    if not submissions:
        return set()
    # Array tasks one by one; %K is the place in the array, N/A for a job of its own.
    command = ["squeue", "--noheader", "--array", "--name", ",".join(submissions), "--format", "%j|%K|%t"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise NoAnswer(
            f"squeue does not answer ({' '.join(asked.stderr.split())}), so it is unknown which runs are "
            "queued or running; nothing was submitted: try again later"
        )
    found = set()
    for line in asked.stdout.splitlines():
        name, place, _ = line.strip().split("|")
        found.add(submissions[name][int(place) if place.isdigit() else 0])
    return found


@contextlib.contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Inside a job (an interactive one, say), its SLURM_ variables would contradict the new job's options."""
    inside = "SLURM_JOB_ID" in os.environ
    own = {key: os.environ.pop(key) for key in list(os.environ) if inside and key.startswith("SLURM_")}
    if "SLURM_CONF" in own:
        os.environ["SLURM_CONF"] = own["SLURM_CONF"]
    try:
        yield
    finally:
        os.environ.update(own)


def _submissions(out: Path) -> list[dict[str, Any]]:
    path = out / "slurm" / "submissions.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
