"""calibration.yaml, the training: horizons, optimisation, where runs run and what that costs."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from mixplan.documents.base import (
    Count,
    Fraction,
    Name,
    NonNegative,
    OpenFraction,
    Part,
    Positive,
    Whole,
    distinct,
)


class Horizons(Part):
    """How long each rung trains: with warm-up, constant and decaying learning rate to each horizon."""

    tokens: list[Count] = []
    """Absolute token counts."""
    tokens_per_20_params: list[Positive] = []
    """Multiples of 20 tokens a block parameter (1 = Chinchilla-optimal)."""
    branches: bool = True
    """true: one run to the longest horizon, at constant learning rate; each shorter horizon is a decay that
    branches off it and ends at its token count (WSD, arXiv 2404.06395), so that all horizons cost little more
    than the longest. false: each horizon is a run of its own."""

    @model_validator(mode="after")
    def _one_kind(self) -> Horizons:
        if bool(self.tokens) == bool(self.tokens_per_20_params):
            raise ValueError("give either `tokens` or `tokens_per_20_params`, with at least one value")
        return self


class Training(Part):
    """Optimisation: AdamW, linear warm-up, constant, linear decay to zero."""

    rule: Literal["scaled", "fixed"] = "scaled"
    """scaled: learning rate and batch follow size (arXiv 2406.19146); fixed: the same for all."""
    learning_rate: Positive | None = None
    """Peak learning rate of the fixed rule."""
    learning_rate_multiplier: Positive = 0.25
    """Scaled rule: factor on 0.0047·(N/108e6)^(-1/3). OLMo-ladder uses a quarter."""
    batch_sequences: Count | None = None
    """Sequences a step, the same for all sizes. Empty with the scaled rule: batch follows size."""
    batch_multiplier: Positive = 0.5
    """Scaled rule: factor on 160·(N/108e6)^(2/3) sequences of 2048 tokens. OLMo-ladder uses a half."""
    min_batch_tokens: Count = 1024
    """Scaled rule: no batch is smaller than this."""
    warmup_fraction: Fraction = 0.0625
    """Share of the steps spent warming up."""
    decay_fraction: Fraction = 0.1
    """Share of the steps, at the end, spent decaying to zero."""
    weight_decay: NonNegative = 0.1
    """Decoupled weight decay (not on norms and embeddings)."""
    beta1: OpenFraction = 0.9
    """AdamW first-moment decay."""
    beta2: OpenFraction = 0.95
    """AdamW second-moment decay."""
    grad_clip: Positive = 1.0
    """Largest gradient norm."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast with fp32 weights; for GPUs (on CPUs it is far slower than fp32)."""
    compile: bool = False
    """Use torch.compile."""
    checkpoint_every_seconds: Positive = 60.0
    """How much work a killed run may lose, at most."""

    @model_validator(mode="after")
    def _rule_has_its_numbers(self) -> Training:
        if self.rule == "fixed" and (self.learning_rate is None or self.batch_sequences is None):
            raise ValueError("rule fixed needs both `learning_rate` and `batch_sequences`")
        if self.rule == "scaled" and self.learning_rate is not None:
            raise ValueError(
                "`learning_rate` goes with rule fixed; for rule scaled set `learning_rate_multiplier`"
            )
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("warmup_fraction + decay_fraction must not exceed 1")
        return self


class Slurm(Part):
    """What each run asks of Slurm."""

    partition: str | None = None
    """Partition; empty: the cluster's default."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    time_minutes: Count = 240
    """Time limit of one job. A run that needs longer is saved, requeued and continued."""
    gpus_per_run: Whole | None = None
    """GPUs of a job. Default: `processes_per_run` with device cuda, else none."""
    cpus_per_run: Count | None = None
    """CPU cores of a job. Default: `processes_per_run` × `threads_per_slot`."""
    mem_gb: Positive | None = None
    """Memory of a job in GB; empty: the cluster's default."""
    max_parallel: Count | None = None
    """Runs at the same time, at most; empty: no limit of ours."""
    signal_seconds: Count = 90
    """How long before the time limit a run is told to save and be requeued."""
    setup: list[str] = []
    """Shell commands before each run, such as `module load cuda`."""
    extra: dict[str, str | int | bool] = {}
    """Any further sbatch options, without their dashes: `{constraint: a100}`."""


class Engine(Part):
    """Where the runs run."""

    kind: Literal["local", "slurm"] = "local"
    """local: one process per run on this machine, as many side by side as there are slots. slurm: an array
    job, one job per run (needs `pip install 'mixplan[slurm]'`)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: GPUs if there are any (on Slurm: if `slurm.gpus_per_run` asks for some)."""
    slots: Count | None = None
    """Local: GPUs, or places of `threads_per_slot` cores, that are used. Default: all. A run takes
    `processes_per_run` of them; more than there are GPUs share them."""
    threads_per_slot: Count = 1
    """CPU threads of one process. Results on CPU repeat exactly only for the same number."""
    processes_per_run: Count = 1
    """Processes that train one run together, through torchrun: one per GPU. The sequences of a step are split
    evenly among them."""
    fsdp_from_params: Positive = 1e9
    """With several processes per run: total parameters from which the model is sharded over them (FSDP2);
    below, each holds all of it (DDP)."""
    slurm: Slurm = Slurm()

    @model_validator(mode="after")
    def _enough_gpus(self) -> Engine:
        gpus = self.slurm.gpus_per_run
        if self.kind == "slurm" and gpus and gpus < self.processes_per_run:
            raise ValueError(
                f"slurm.gpus_per_run is {gpus}, but each of the {self.processes_per_run} processes of a run "
                "needs a GPU of its own; ask for as many GPUs, or lower `processes_per_run`"
            )
        if self.kind == "slurm" and gpus == 0 and self.device == "cuda":
            raise ValueError(
                "device cuda needs GPUs, but slurm.gpus_per_run is 0; raise it or use device cpu"
            )
        if self.kind == "slurm" and gpus and self.device == "cpu":
            raise ValueError(f"slurm.gpus_per_run is {gpus}, but device is cpu; use device cuda or 0 GPUs")
        return self


class Tracking(Part):
    """Experiment trackers to report to while training; the run folders stay the record."""

    trackers: list[Literal["wandb", "mlflow", "trackio"]] = []
    """Each needs its extra: `pip install 'mixplan[wandb]'`. Where they report to is set as each of them says
    (`WANDB_MODE`, `MLFLOW_TRACKING_URI`, `TRACKIO_SPACE_ID`)."""
    project: Name = "mixplan"
    """Project (MLflow: experiment) that the runs are shown under."""

    @field_validator("trackers")
    @classmethod
    def _distinct_trackers(cls, value: list[str]) -> list[str]:
        return distinct(value) if value else value


class Hardware(Part):
    """For the estimate of `mixplan plan`. The defaults were measured on one CPU core with cpu_ presets."""

    name: str = "one CPU core"
    """What a slot is."""
    peak_flops_per_second: Positive = 6.4e10
    """Peak rate of one slot."""
    mfu: OpenFraction = 0.8
    """Share of the peak that training reaches on large matrices. Required with `peak_flops_per_second`,
    because the default is a CPU core's."""
    step_overhead_seconds: NonNegative = 0.06
    """Time per step that does not shrink with the model: what tiny models spend most of theirs on."""
    start_seconds: NonNegative = 4.0
    """Time of a run before its first step: imports, model, data."""
    price_per_slot_hour: NonNegative = 0.0
    """Money per slot and hour."""
    currency: str = "USD"
    """Currency of the price."""

    @model_validator(mode="after")
    def _rate_is_whole(self) -> Hardware:
        if "peak_flops_per_second" in self.model_fields_set and "mfu" not in self.model_fields_set:
            raise ValueError(
                "give `mfu` together with `peak_flops_per_second`: the default is that of a CPU core"
            )
        return self
