"""Fuzz of everything that reads files from elsewhere: a value that keeps its promises, or the documented error.

Each reader is given CASES cases, made up and damaged, the same ones at every start; the environment variable FUZZ_CASES
asks for another number. No other exception may come out of it, no hang (seconds of the processor), no gigabyte of
memory, and nothing outside of its folder is written, nor anything of the secret folder beside it opened.
"""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.safety import data_readers as data
from tests.safety import run_readers as runs
from tests.safety import weight_readers as weights
from tests.safety.sandbox import Sandbox
from tests.safety.strategies import PNG, Case

CASES = int(os.environ.get("FUZZ_CASES", "50"))
MEMORY = 1 << 20  # KiB that a reader may add to the largest that this process has ever taken

READERS: dict[str, tuple[st.SearchStrategy[Case], Callable[[Path, Any], None]]] = {
    "PIE-Bench": (data.piebench_cases, data.piebench),
    "masks": (data.mask_cases, data.masks),
    "images": (data.image_cases, data.images),
    "translation parquet": (data.translation_cases, data.translation),
    "training jsonl": (data.jsonl_cases, data.training_jsonl),
    "training parquet": (data.training_parquet_cases, data.training_parquet),
    "run directory": (runs.run_cases, runs.run_directory),
    "report of a run": (runs.run_cases, runs.report),
    "model folder": (weights.models(), weights.model_folder),
    "pickles": (weights.pickle_cases, weights.pickles),
    "shared checkpoint": (weights.shared_cases, weights.shared),
    "tokenizer": (weights.tokenizers(), weights.tokenizer),
    "prompts": (weights.prompters(), weights.prompter),
    "language model": (weights.language_models(), weights.language_model),
    "recipe": (weights.recipe_cases, weights.recipe),
    "training settings": (weights.training_cases, weights.training),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_a_value_or_its_documented_error(name: str, tmp_path: Path) -> None:
    cases, read = READERS[name]
    sandbox = Sandbox(tmp_path, {"secret.png": PNG, "secret.json": b"{}"})
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def fuzz(case: Case) -> None:
        sandbox.fill(case.files, case.links)
        with sandbox.watch():
            read(sandbox.root, case.more)

    fuzz()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - largest < MEMORY
