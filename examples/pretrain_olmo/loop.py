"""The training loop: from a position in the mixture to its end, with logs and checkpoints.

Shape legend: B = sequences of this process in a step, T = sequence length, S = sources of all phases.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixture import Phase, held_out_samples, open_loader
from parallel import Checkpoints, Ranks, SequenceLoss, export, gradients_stay, spread

from mixplan.calibrate import ladder
from mixplan.calibrate.model import build_model, build_optimizer
from mixplan.documents.atomic import write_text
from mixplan.documents.shapes import ModelShape
from mixplan.documents.spec_training import Training

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


def rate_factor(step: int, steps: int, warmup: int, kind: str, decay_fraction: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then `wsd` (constant, linear decay to zero; arXiv
    2404.06395) or `cosine` (to a tenth; arXiv 1608.03983, eq. 5)."""
    if kind == "wsd" or step < warmup:
        return ladder.schedule(step, steps, warmup, round(decay_fraction * steps))
    through = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * through))


class Run:
    """A run in progress.

    Args:
        args: the command line.
        shape: of the model.
        training: of the optimizer.
        phases: what to train on, in order.
        ends: step at which each phase ends.
        settings: what makes the run what it is; kept in its checkpoints.
        ranks: the processes.
    """

    def __init__(
        self,
        args: Any,
        shape: ModelShape,
        training: Training,
        phases: list[Phase],
        ends: list[int],
        settings: dict[str, Any],
        ranks: Ranks,
    ) -> None:
        self.args, self.training, self.ranks, self.settings = args, training, ranks, settings
        self.phases, self.ends = phases, ends
        self.names = list(dict.fromkeys(name for phase in phases for name in phase.mixture.streams))
        recipe = phases[0].recipe
        torch.manual_seed(args.seed)
        with ranks.device:
            self.model = build_model(
                shape, recipe.vocab_size, recipe.sequence_length, architecture=args.architecture
            )
        self.loss = spread(SequenceLoss(self.model, args.precision), ranks, args.fsdp, args.compile)
        self.optimizer = build_optimizer(self.model, args.learning_rate, training)
        self.checkpoints = Checkpoints(args.out / "checkpoints", args.keep, ranks)
        self.held_out = (
            held_out_samples(args.held_out, phases[0].mixture.column, args.held_out_samples)
            if args.held_out
            else {}
        )
        self.length = recipe.sequence_length
        self.step, self.phase, self.loader_state = 0, 0, None
        self.seen = np.zeros(len(self.names), np.int64)
        """Samples of each source in the whole run so far, over all processes, (S,)."""
        self.available = np.ones(len(self.names), np.int64)
        """Samples that there are of each source, known from its phase on, (S,)."""
        self._new_window()
        self._resume()

    def train(self) -> None:
        """From where it is to the end of the last phase, or to --stop-at-step."""
        last = min(self.ends[-1], self.args.stop_at_step or self.ends[-1])
        while self.step < last:
            if self.ends[self.phase] <= self.step:  # it fills no global batch, and its samples are left out
                self.phase, self.loader_state = self.phase + 1, None
                continue
            self._train_phase(self.phases[self.phase], self.ends[self.phase], last)
        if self.step == self.ends[-1]:
            export(self.model, self.args.out / "model", self.ranks)

    def _train_phase(self, phase: Phase, end: int, last: int) -> None:
        args, device = self.args, self.ranks.device
        options = {
            key: value for key in ("predownload", "cache_limit") if (value := getattr(args, key)) is not None
        }
        size = args.global_batch // self.ranks.size
        loader = open_loader(phase, size, args.workers, device.type == "cuda", options)
        if self.loader_state is not None:
            loader.load_state_dict(self.loader_state)
        numbers = torch.tensor([self.names.index(name) for name in phase.mixture.streams], device=device)
        self.available[numbers.cpu().numpy()] = loader.dataset.samples_per_stream
        for batch in loader:
            norm = self._train_step(
                batch["tokens"].to(device, non_blocking=True), numbers[batch["source"].to(device)]
            )
            self.step += 1
            if args.log_samples:
                self._write(SAMPLES, {"sample_ids": self.ranks.in_order(batch["sample_id"])})
            stops = self.step in (end, last)
            saves = stops or self.step % args.checkpoint_every == 0
            if saves or self.step % args.log_every == 0:
                self._log(phase, norm)
            if self.held_out and (stops or self.step % args.held_out_every == 0):
                self._write(METRICS, {"held_out": self._held_out_losses()})
            if saves:
                self._save(None if self.step == end else loader.state_dict())
            if stops:
                break
            if self.since_step == self.step:
                self.since = time.monotonic()  # measuring and saving is not training
        self.phase, self.loader_state = self.phase + 1, None

    def _save(self, loader_state: dict[str, Any] | None) -> None:
        """Save everything; a loader without a state has finished its phase."""
        state = {
            "phase": self.phase + (loader_state is None),
            "loader": loader_state,
            "seen": self.seen.tolist(),
            "available": self.available.tolist(),
            "settings": self.settings,
        }
        self.checkpoints.save(self.step, self.model, self.optimizer, state)

    def _train_step(self, tokens_BT: torch.Tensor, source_B: torch.Tensor) -> torch.Tensor:
        """One step on the global batch, of which this process has its part; the gradient's norm."""
        args = self.args
        factor = rate_factor(
            self.step, self.ends[-1], args.warmup_steps, args.schedule, self.training.decay_fraction
        )
        for group in self.optimizer.param_groups:
            group["lr"] = args.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        parts = tokens_BT.split(args.micro_batch or len(tokens_BT))
        sources = source_B.split(args.micro_batch or len(tokens_BT))
        for number, (part, source) in enumerate(zip(parts, sources, strict=True), 1):
            with gradients_stay(self.loss, number < len(parts)):
                nll = self.loss(part)
                (nll.sum() / len(tokens_BT)).backward()
            self.window[0].index_add_(0, source, nll.detach().double())
            self.window[1].index_add_(0, source, torch.ones_like(nll, dtype=torch.float64))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.grad_clip)
        self.optimizer.step()
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def _new_window(self) -> None:
        """Sums of losses and samples of each source since the last log, (2, S)."""
        self.window = torch.zeros(2, len(self.names), dtype=torch.float64, device=self.ranks.device)
        self.since, self.since_step = time.monotonic(), self.step

    def _log(self, phase: Phase, norm: torch.Tensor) -> None:
        losses, counts = self.ranks.sum(self.window).numpy()
        self.seen += counts.astype(np.int64)
        samples, seconds = int(counts.sum()), time.monotonic() - self.since
        sources = {}
        for number, name in enumerate(self.names):
            seen = int(self.seen[number])
            sources[name] = {
                "loss": losses[number] / counts[number] if counts[number] else None,
                "samples": seen,
                "share": seen / int(self.seen.sum()),
                "tokens": seen * self.length,
                "epochs": seen / int(self.available[number]) if seen else 0.0,
            }
        loss = float(losses.sum() / samples)
        row = {
            "phase": phase.name,
            "tokens": int(self.seen.sum()) * self.length,
            "loss": loss,
            "gradient_norm": norm.item(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "tokens_per_second": round(samples * self.length / seconds, 1),
            "sources": sources,
        }
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.step}: lower --learning-rate, in a new --out; "
                "what was saved before is untouched"
            )
        self._write(METRICS, row)
        if self.ranks.first:
            print(
                f"step {self.step}/{self.ends[-1]}  loss {loss:.4f}  "
                f"{row['tokens_per_second']:,.0f} tokens/s",
                flush=True,
            )
        self._new_window()

    @torch.no_grad()
    def _held_out_losses(self) -> dict[str, float]:
        """Mean next-token NLL of each source's held-out samples, in nats."""
        found = {}
        for name, rows in self.held_out.items():
            total = torch.zeros(2, dtype=torch.float64)
            # All processes make the same number of passes: sharded parameters are gathered by all.
            for start in range(0, len(rows), self.ranks.size):
                own = min(start + self.ranks.rank, len(rows) - 1)
                nll = self.loss(torch.from_numpy(rows[own : own + 1]).to(self.ranks.device))
                if start + self.ranks.rank < len(rows):
                    total += torch.tensor([nll.item(), 1.0])
            summed = self.ranks.sum(total)
            found[name] = float(summed[0] / summed[1])
        return found

    def _write(self, name: str, row: dict[str, Any]) -> None:
        if self.ranks.first:
            with (self.args.out / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step, **row}) + "\n")

    def _resume(self) -> None:
        """Continue from the latest checkpoint; what was logged after it is made again."""
        state = self.checkpoints.latest()
        if state is not None:
            self.step, self.phase = state["step"], state["phase"]
            self.loader_state = state["loader"]
            self.seen = np.array(state["seen"], np.int64)
            self.available = np.array(state["available"], np.int64)
            self.checkpoints.load(self.step, self.model, self.optimizer)
        if self.ranks.first:
            for name in (METRICS, SAMPLES):
                _keep_until(self.args.out / name, self.step)
        self._new_window()


def _keep_until(path: Path, step: int) -> None:
    """Drop rows after a step, and a last row that a kill cut short."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    write_text(path, "".join(line for line in whole if json.loads(line)["step"] <= step))
