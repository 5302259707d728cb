"""Retention: a burst of tasks the run has never seen, then ordinary training; what is left after each delay.

Protocol of arXiv 2605.29548 (injection probe) and 2406.11813: NLL of the injected instances just before the
burst, and after each delay. The gain keeps growing for some steps after the burst (optimizer momentum), so
fits start at its peak. Every injection has tasks of its own, so that none sees another's burst.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.probes.bursts import first_steps
from mixplan.calibrate.probes.scoring import Questions, by_group, score
from mixplan.calibrate.tasks import Task, make_probe_tasks
from mixplan.calibrate.tasks.base import Tokens
from mixplan.documents.calibration_spec import CalibrationSpec, Retention


class RetentionProbe:
    """One burst in one run. `before` is its only state and travels in the checkpoint."""

    def __init__(self, spec: Retention, tasks: list[Task], end_of_document_id: int, first: int) -> None:
        """`first` is the burst's first step."""
        self.spec, self.tasks, self.end_of_document_id = spec, tasks, end_of_document_id
        self.first = first
        self.each_step = spec.instances // spec.burst_steps
        self.instances = self.each_step * spec.burst_steps
        """Of each task in the burst: an equal number in each step, so not always all that was asked for."""
        self.last = self.first + spec.burst_steps - 1
        self.before: list[list[float]] | None = None
        self._questions: Questions | None = None

    def burst(self, step: int) -> list[Tokens]:
        """What this step injects: an equal part of each task's instances, its training instances in turn."""
        if not self.first <= step <= self.last:
            return []
        start = (step - self.first) * self.each_step
        return [
            task.train[index % len(task.train)].document(self.end_of_document_id)
            for task in self.tasks
            for index in range(start, start + self.each_step)
        ]

    def starts_at(self, step: int) -> bool:
        """Whether the NLL before the burst must be measured now, before the step."""
        return step == self.first

    def delay_after(self, step: int) -> int | None:
        """The delay, in steps, that is due after `step` has been trained; None when none is."""
        delay = step - self.last
        return delay if delay in self.spec.delays_steps else None

    def measure(self, model: Any, contexts: np.ndarray, precision: str) -> list[list[float]]:
        """Mean choice NLL and mean full-vocabulary NLL of each task's injected instances."""
        if self._questions is None:
            injected = [task.train[: self.instances] for task in self.tasks]
            self._questions = Questions(injected, contexts, next(model.parameters()).device)
        scores = score(model, self._questions, precision)
        choice, answer = (by_group(nll, self._questions) for nll in (scores.choice_nll, scores.answer_nll))
        return [[float(a.mean()), float(b.mean())] for a, b in zip(choice, answer, strict=True)]

    def rows(
        self, now: list[list[float]], delay_steps: int, tokens_per_step: int, decaying: bool
    ) -> list[dict[str, Any]]:
        """Rows of the retention table, less the run's own columns.

        Args:
            now: what `measure` gives now.
            delay_steps: steps since the burst.
            tokens_per_step: training tokens a step.
            decaying: whether the learning rate has begun to decay at the end of the run.
        """
        assert self.before is not None
        return [
            {
                "task": task.name,
                "family": task.family,
                "complexity": task.complexity,
                "instances": self.instances,
                "injected_at_tokens": (self.last + 1) * tokens_per_step,
                "delay_tokens": delay_steps * tokens_per_step,
                "choice_nll_before": before[0],
                "choice_nll": after[0],
                "gain": before[0] - after[0],
                "answer_nll_before": before[1],
                "answer_nll": after[1],
                "answer_gain": before[1] - after[1],
                "decaying": int(decaying),
            }
            for task, before, after in zip(self.tasks, self.before, now, strict=True)
        ]


def retention_probes(
    spec: CalibrationSpec,
    seed: int,
    base_vocab: int,
    end_of_document_id: int,
    steps: int,
    base: Path | None = None,
) -> list[RetentionProbe]:
    """The retention probes of a run of so many steps, one per injection; `base` as in `make_probe_tasks`."""
    probe = spec.probes.retention
    if probe is None:
        return []
    return [
        RetentionProbe(probe, tasks, end_of_document_id, first)
        for first, tasks in zip(
            first_steps(probe, steps), make_probe_tasks(spec, seed, base_vocab, base), strict=True
        )
    ]
