"""What other trainers make of emitted mixtures, read with their own code where it can be installed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

EOD = 256


def megatron_blend(folder: Path, length: int) -> Any:
    """The training set that Megatron builds from the emitted arguments, as pretrain_gpt.py does."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    arguments = megatron_arguments(folder)
    config = GPTDatasetConfig(
        random_seed=int(arguments["--seed"]),
        sequence_length=int(arguments["--seq-length"]),
        blend=get_blend_from_list(Path(arguments["--data-args-path"]).read_text().split()),
        split=arguments["--split"],
        tokenizer=SimpleNamespace(eod=EOD, vocab_size=257, unique_identifiers={}),  # type: ignore[arg-type]
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        mid_level_dataset_surplus=0.005,
    )
    sizes = [int(arguments["--train-samples"]), 0, 0]
    blend, *_ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
    assert int(arguments["--seq-length"]) == length
    return blend


def megatron_arguments(folder: Path) -> dict[str, str]:
    """The array in megatron.sh, as bash reads it."""
    script = 'source "$0"; printf "%s\\n" "${MIXTURE_ARGS[@]}"'
    done = subprocess.run(
        ["bash", "-c", script, str(folder / "megatron.sh")], capture_output=True, text=True, check=True
    )
    words = done.stdout.splitlines()
    return dict(zip(words[::2], words[1::2], strict=True))


def greedy_blend(weights: list[float], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and number within it of each sample [n], by the function that nanotron has from Megatron too."""
    from megatron.core.datasets import helpers

    shares = np.array(weights, np.float64)
    source, number = np.zeros(samples, np.int16), np.zeros(samples, np.int64)
    helpers.build_blending_indices(source, number, shares / shares.sum(), len(weights), samples, False)
    return source, number


def nanotron_windows(folder: Path, samples: int) -> list[list[np.ndarray]]:
    """The windows of each source that nanotron reads in a run, in order."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    config = yaml.safe_load((folder / "nanotron.yaml").read_text())
    dataset = config["data_stages"][0]["data"]["dataset"]
    files = [
        DatatroveFolderDataset(
            place,
            config["tokens"]["sequence_length"],
            "*.ds",
            recursive=False,
            token_size=dataset["token_size_in_bytes"],
            return_positions=True,
        )
        for place in dataset["dataset_folder"]
    ]
    windows: list[list[np.ndarray]] = [[] for _ in files]
    for source, number in zip(*greedy_blend(dataset["dataset_weights"], samples), strict=True):
        item = files[source][int(number)]
        windows[source].append(np.stack([item["input_ids"].numpy(), item["positions"].numpy()]))
    return windows


def llm_foundry_counts(folders: list[Path]) -> list[dict[str, int]]:
    """Samples of each stream, read as LLM Foundry's build_text_dataloader does, in a process of its own."""
    command = [sys.executable, __file__, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _llm_foundry_count(folder: Path) -> dict[str, int]:
    import inspect

    from streaming import Stream, StreamingDataset
    from torch.utils.data import DataLoader

    class Numbered(StreamingDataset):
        def __getitem__(self, at: Any) -> int:
            assert super().__getitem__(at)["tokens"].shape == (settings["max_seq_len"],)
            return int(at)

    loader = yaml.safe_load((folder / "llm_foundry.yaml").read_text())["train_loader"]
    settings = loader["dataset"]
    names = list(settings["streams"])
    streams = [Stream(**stream) for stream in settings.pop("streams").values()]
    known = inspect.signature(StreamingDataset).parameters
    assert set(settings) - set(known) == {"max_seq_len"}, "others would be dropped without a word"
    dataset = Numbered(
        streams=streams, batch_size=1, **{key: value for key, value in settings.items() if key in known}
    )
    order = [int(one) for one in DataLoader(dataset, batch_size=1, drop_last=loader["drop_last"])]
    stream = np.searchsorted(dataset.sample_offset_per_stream, order, side="right") - 1
    return dict(zip(names, np.bincount(stream, minlength=len(names)).tolist(), strict=True))


if __name__ == "__main__":
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    for name in sys.argv[1:]:
        sys.stdout.write(json.dumps(_llm_foundry_count(Path(name))) + "\n")
