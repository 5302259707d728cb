"""A part's measurements as rows of the tables that calibrate writes: width as size, samples as tokens.

`accuracy` is the task's signal s_k = Tr(P_U C_k)/Tr(C_k) and `chance` that of a random subspace, N/D, so that
`skill` is the normalised signal of arXiv 2605.29548, below 0 where a task was evicted. The losses in
`choice_nll` and `lm_loss` are mean squared errors over the mean predictor's, a task's and the mixture's; in
`retention` with the best decoder there is, which leaves 1 − s_k.

Shape legend: S = seeds, R = models of a seed in a stack, K = tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mixplan.documents.measurements import STANDARD
from mixplan.testbed import measures, theory
from mixplan.testbed.batches import SPREAD, injected
from mixplan.testbed.optimizer import AdamW
from mixplan.testbed.parts import Part
from mixplan.testbed.students import Students, Targets

FAMILY = "linear_regression"


@dataclass
class Rows:
    """Rows by table."""

    learning: list[dict[str, Any]] = field(default_factory=list)
    retention: list[dict[str, Any]] = field(default_factory=list)
    interference: list[dict[str, Any]] = field(default_factory=list)


class Stage:
    """What is measured of a part, and what it keeps from before an injection until its gain is known."""

    def __init__(self, part: Part, target: Targets, device: str) -> None:
        self.part, self.target = part, target
        mixture = part.mixture
        self.priors = mixture.priors()
        self.weight = torch.from_numpy(self.priors).to(device)
        self.utilities = mixture.utilities()[:, 0]
        self.widths = theory.critical_widths(mixture)[:, 0]
        self.complexities = mixture.complexities()
        self.frequent = mixture.frequent()
        self.before: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = {}
        """By stack, setting and injection: loss and signal of the rarest task, shape (S, its R)."""
        self.watched = [
            (setting, gap, step, set(part.delays(gap)))
            for setting, gap in enumerate(part.gaps)
            for step in part.injections(gap)
            if injected(gap, step, part.batch, float(self.priors[-1]))
        ]

    def evaluate(self, rows: Rows, students: Students, optimizer: AdamW, step: int) -> None:
        """Append what a stack knows after so many steps, and its conflicts."""
        share = measures.signals(students, self.target)
        signal = measures.task_signals(share, self.target).clamp(0, 1).cpu().numpy()
        first = share[..., 0].clamp(0, 1).cpu().numpy()
        loss = measures.losses(students, self.target).cpu().numpy()
        conflict = measures.conflicts(
            students, self.target, self.weight.float(), self.frequent, optimizer, step + 1, self.part.schedule
        )
        found = [
            values.cpu().double().numpy()
            for values in (conflict.cosine, conflict.task_norm, conflict.common_norm, conflict.loss_change)
        ]
        tokens = float(step * self.part.batch)
        for s, seed in enumerate(self.part.seeds):
            for r, width in enumerate(students.widths):
                run = self._run(width, seed, students.settings[r])
                chance = width / self.part.mixture.dim
                mixed = float(self.priors @ loss[s, r])
                for k in range(self.part.mixture.tasks):
                    cell = {**run, "tokens": tokens, **self._task(k, students.settings[r])}
                    rows.learning.append({
                        **cell,
                        "total_params": students.total_params(r),
                        "step": step,
                        "exposures": float(self.priors[k]) * tokens,
                        "accuracy": float(signal[s, r, k]),
                        "chance": chance,
                        "skill": float((signal[s, r, k] - chance) / (1 - chance)),
                        "choice_nll": float(loss[s, r, k]),
                        "lm_loss": mixed,
                        # The schedule knows no horizon: a run of so many steps would have ended here.
                        "decayed": 1.0,
                        "gap_tokens": self._gap_tokens(k, students.settings[r]),
                        "first_feature_signal": float((first[s, r, k] - chance) / (1 - chance)),
                        "first_feature_utility": float(self.utilities[k]),
                        "first_critical_width": int(self.widths[k]),
                    })  # fmt: skip
                    if k >= self.frequent:
                        names = ("cosine", "task_grad_norm", "common_grad_norm", "loss_change")
                        values = (float(column[s, r, k]) for column in found)
                        rows.interference.append({**cell, **dict(zip(names, values, strict=True))})

    def follow(self, rows: Rows, stacks: list[Students], done: int) -> None:
        """Append how an injection's gain decays, wherever one is due after so many completed steps."""
        for setting, gap, step, delays in self.watched:
            if done == step - 1 or done - step in delays:
                for number, students in enumerate(stacks):
                    self._follow(rows, number, students, setting, gap, step, done)

    def _follow(
        self, rows: Rows, number: int, students: Students, setting: int, gap: int, step: int, done: int
    ) -> None:
        own = students.of_setting(setting)
        share = measures.signals(own, self.target)
        signal = measures.task_signals(share, self.target)[..., -1].clamp(0, 1).cpu().numpy()
        loss = measures.losses(own, self.target)[..., -1].cpu().numpy()
        key = (number, setting, step)
        if done < step:
            self.before[key] = (loss, signal)
            return
        loss_before, signal_before = self.before[key]
        batch = self.part.batch
        for s, seed in enumerate(self.part.seeds):
            for r, width in enumerate(own.widths):
                cell = self._task(self.part.mixture.tasks - 1, setting)
                chance = width / self.part.mixture.dim
                # By what the encoder holds: a decoder is its task's own, and nobody overwrites it.
                left_before, left = (1 - float(values[s, r]) for values in (signal_before, signal))
                rows.retention.append({
                    **self._run(width, seed, setting),
                    **{name: cell[name] for name in ("task", "family", "complexity", "protocol")},
                    "instances": injected(gap, step, batch, float(self.priors[-1])),
                    "injected_at_tokens": float(step * batch),
                    "delay_tokens": float((done - step) * batch),
                    "choice_nll_before": left_before,
                    "choice_nll": left,
                    "gain": left_before - left,
                    "loss_before": float(loss_before[s, r]),
                    "loss": float(loss[s, r]),
                    "skill": 1 - left / (1 - chance),
                    "gap_tokens": float(gap * batch),
                })  # fmt: skip

    def _run(self, width: int, seed: int, setting: int) -> dict[str, Any]:
        gap = self.part.gaps[setting]
        name = self.part.name if gap == SPREAD else f"{self.part.name}{gap}"
        return {
            "run_id": f"{name}-w{width}-s{seed}",
            "rung": f"width_{width}",
            "block_params": width,
            "seed": seed,
        }

    def _task(self, task: int, setting: int) -> dict[str, Any]:
        return {
            "task": f"task_{task + 1}",
            "family": FAMILY,
            "complexity": float(self.complexities[task]),
            "frequency": float(self.priors[task]),
            "protocol": self._protocol(task, setting),
        }

    def _protocol(self, task: int, setting: int) -> str:
        gap = self.part.gaps[setting]
        if gap == SPREAD:
            return self.part.protocol
        own = f"gap {gap} steps" if task == self.part.mixture.tasks - 1 else f"beside a gap of {gap} steps"
        return own if self.part.protocol == STANDARD else f"{self.part.protocol}, {own}"

    def _gap_tokens(self, task: int, setting: int) -> float:
        return (
            float(self.part.gaps[setting] * self.part.batch) if task == self.part.mixture.tasks - 1 else 0.0
        )
