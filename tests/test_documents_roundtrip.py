"""document → YAML or JSON → the same document, for documents with awkward names, numbers and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mixplan.documents import Calibration, CalibrationSpec, Plan, Recipe, load, save
from mixplan.documents.shapes import PRESETS

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True) | st.sampled_from(
    ["no", "on", "1e5", "010", "null", "true", "0x1f", "1.5", "7", "2020-01-01", "y"]
)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["a: b", "# x", "- x", "'", '"', "a\nb", " a ", "{a}", "*x", "&x", "!x"]
)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
COUNTS = st.integers(1, 10**18)
FRACTIONS = st.floats(0, 1)
OPEN = st.floats(0, 1, exclude_min=True, exclude_max=True)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PROVENANCE = st.dictionaries(TEXTS, JSON_VALUES, max_size=3)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping in which each of the fields may be left out."""
    return st.fixed_dictionaries({}, optional=fields)


SHAPES = st.builds(
    lambda name, heads, width, layers, ffn: {
        "name": name, "d_model": heads * width * 2, "layers": layers, "heads": heads, "d_ffn": ffn,
    },
    NAMES, st.integers(1, 64), st.integers(1, 64), COUNTS, COUNTS,
)  # fmt: skip
RUNGS = st.lists(st.sampled_from(sorted(PRESETS)), min_size=1, max_size=4, unique=True) | st.lists(
    SHAPES, min_size=1, max_size=3, unique_by=lambda shape: shape["name"]
)

SPECS = st.fixed_dictionaries(
    {
        "corpus": st.fixed_dictionaries(
            {"paths": st.lists(TEXTS, min_size=1, max_size=3)},
            optional={
                "format": st.sampled_from(["text", "npy", "mds", "datasets"]),
                "pattern": TEXTS,
                "column": st.none() | TEXTS,
                "max_tokens": st.none() | COUNTS,
                "held_out_fraction": OPEN,
            },
        ),
        "ladder": RUNGS,
        "horizons": st.fixed_dictionaries({"tokens": st.lists(COUNTS, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"tokens_per_20_params": st.lists(POSITIVE, min_size=1, max_size=3)}),
        "tasks": st.lists(
            st.fixed_dictionaries(
                {
                    "family": st.sampled_from(["comparison", "modular_addition"]),
                    "complexities": st.lists(st.integers(3, 10**6), min_size=1, max_size=3, unique=True),
                    "frequencies": st.lists(POSITIVE, min_size=1, max_size=3, unique_by="{:.6g}".format),
                }
            ),
            min_size=1,
            max_size=2,
            unique_by=lambda grid: grid["family"],
        ),
    },
    optional={
        "name": NAMES,
        "tokenizer": st.just({"kind": "none", "vocab_size": 10, "end_of_document_id": 0})
        | st.fixed_dictionaries({"kind": st.just("huggingface"), "path": TEXTS}),
        "seeds": st.lists(st.integers(0, 2**62), min_size=1, max_size=3, unique=True),
        "training": some(weight_decay=POSITIVE, beta1=OPEN, grad_clip=POSITIVE, compile=st.booleans()),
        "probes": some(
            retention=st.none() | some(at_fractions=st.lists(OPEN, min_size=1, unique=True)),
            interference=st.none() | some(points=COUNTS),
            features=st.none() | some(components=COUNTS),
        ),
        "hardware": some(name=TEXTS, currency=TEXTS, price_per_slot_hour=POSITIVE),
        "learned_skill": OPEN,
    },
)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    sources = [
        {
            "name": name,
            "role": "common" if index == 0 else "rare",
            **draw(some(text=st.lists(TEXTS, max_size=2), mds=st.none() | TEXTS, tokens_available=POSITIVE)),
        }
        for index, name in enumerate(names)
    ]
    task = {
        "name": draw(NAMES),
        "density": draw(st.dictionaries(st.sampled_from(names), POSITIVE, min_size=1)),
        "family": draw(TEXTS),
        "complexity": draw(POSITIVE),
        "target_probability": draw(OPEN),
    }
    return {
        "sources": sources,
        "tasks": [task],
        "sizes": draw(RUNGS),
        "budget": {"tokens": draw(POSITIVE)},
        **draw(some(name=NAMES, min_tokens=POSITIVE, search=some(seed=st.integers(0, 10**9)))),
    }


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    chosen = [draw(st.integers(0, 10**12)) for _ in names]
    chosen[0] += 1
    length, samples = draw(st.integers(1, 10**6)), sum(chosen)
    sources = [
        {
            "name": name, "role": "common", "share": choose / samples, "natural_share": draw(FRACTIONS),
            "rate": draw(FRACTIONS), "epochs": draw(POSITIVE), "max_epochs": draw(POSITIVE),
            "tokens": choose * length, "tokens_available": draw(POSITIVE), "choose": choose,
        }
        for name, choose in zip(names, chosen, strict=True)
    ]  # fmt: skip
    return {
        "name": draw(NAMES), "size": draw(SHAPES), "block_params": draw(COUNTS), "total_params": draw(COUNTS),
        "vocab_size": draw(COUNTS), "sequence_length": length, "samples": samples, "tokens": samples * length,
        "sources": sources, "provenance": draw(PROVENANCE), "common_loss_nats": draw(st.none() | NUMBERS),
    }  # fmt: skip


@st.composite
def calibrations(draw: st.DrawFn) -> dict[str, Any]:
    parameters = draw(st.lists(TEXTS, max_size=4))
    row = st.lists(NUMBERS, min_size=len(parameters), max_size=len(parameters))
    law = {
        "law": draw(TEXTS), "formula": draw(TEXTS), "parameters": parameters, "values": draw(row),
        "draws": draw(st.lists(row, max_size=3)),
        "settings": draw(st.dictionaries(TEXTS, NUMBERS, max_size=2)),
        "rows": 3, "runs": 1, "residual": draw(st.none() | NUMBERS),
        "warnings": draw(st.lists(TEXTS, max_size=2)),
    }  # fmt: skip
    return {"learning": law, "name": draw(TEXTS), "provenance": draw(PROVENANCE)}


KINDS = [(CalibrationSpec, SPECS), (Plan, plans()), (Recipe, recipes()), (Calibration, calibrations())]


@pytest.mark.parametrize("ending", ["yaml", "json"])
@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    kind: type[BaseModel],
    values: st.SearchStrategy[Any],
    ending: str,
) -> None:
    path: Path = tmp_path_factory.mktemp("documents") / f"document.{ending}"

    @settings(max_examples=40, deadline=None)
    @given(values)
    def there_and_back(given_: dict[str, Any]) -> None:
        document = kind.model_validate(given_)
        save(document, path, header="a comment")
        assert load(path, kind) == document

    there_and_back()
