"""Several tokens a pass: what a pass costs at the paper's size, and how many tokens it gives on the miniature.

How many a released model would give can't be known without its weights, so seconds an image are shown as a function of
that number. The miniature copies what stays by training, and the tokens of its pictures are few: a released model
accepts fewer guesses (papers report 2 to 4 tokens a pass for other models).
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.miniature.world.embedded import COUNTS, held_out_edits, held_out_scenes
from benchmarks.miniature.world.render import condition, render
from benchmarks.miniature.world.scene import caption
from benchmarks.speed.decode_cost import step_seconds
from benchmarks.speed.measure import take_turns
from editar.config import GUESSES, DraftConfig, SamplingConfig
from editar.decoding.decoder import ONE_BY_ONE, Batch
from editar.decoding.sampling import draw_uniforms
from editar.images import to_tensor
from editar.model.transformer import EditARTransformer
from editar.pipeline import EditAR
from editar.prompts import TASKS, translation_prompt

PUBLISHED = SamplingConfig()
TOKENS_A_PASS = (1, 2, 4, 8)  # columns of the seconds an image


def pass_seconds(
    model: EditARTransformer, windows: Sequence[int], fed: Sequence[int], tokens: int, rounds: int
) -> dict[int, float]:
    """Seconds of a pass of one guided image by the number of its places, mean over numbers of fed tokens."""
    taken: dict[int, float] = dict.fromkeys(windows, 0.0)
    for place in tqdm(fed, desc="passes"):
        ways = {
            str(window): partial(step_seconds, Batch(model, 1, PUBLISHED, DraftConfig(window=window)), place, tokens)
            for window in windows
        }
        for window, times in take_turns(ways, rounds).items():
            taken[int(window)] += median(times) / len(fed)
    return taken


def image_seconds(passes: dict[int, float], prefill: float, tokens: int) -> dict[int, dict[int, float]]:
    """Seconds of the transformer for an image, by the places of a pass and the tokens that it gives; only as many as
    there are places."""
    return {
        window: {given: prefill + tokens / given * seconds for given in TOKENS_A_PASS if given <= window}
        for window, seconds in passes.items()
    }


@torch.inference_mode()
def miniature(images: int, windows: Sequence[int]) -> list[dict[str, Any]]:
    """Of each task and guidance the tokens a pass and the seconds an image (prefill included, one image at a time) by
    guess and places, all of which have to draw the same tokens.

    images: of each task. windows: numbers of places; 1 is always among them.
    """
    ways = [DraftConfig(window=window, guess=guess) for guess, window in product(GUESSES, windows) if window > 1]
    model = EditAR.from_pretrained()
    rows: list[dict[str, Any]] = []
    settings = {"greedy, the miniature's guidance": model.sampling, "guidance 3, top-k 1000": PUBLISHED}
    for (task, pictures, texts), (name, sampling) in tqdm(
        list(product(inputs(images), settings.items())), desc="tasks"
    ):
        work = [
            (
                model.vq.encode(to_tensor(picture, model.side)[None]),
                model.text([text]),
                draw_uniforms([seed], model.transformer.config.image_tokens),
            )
            for seed, (picture, text) in enumerate(zip(pictures, texts, strict=True))
        ]
        expected = None
        for drafts in (ONE_BY_ONE, *ways):
            batch = Batch(model.transformer, 1, sampling, drafts)
            drawn, passes, start = [], 0, time.process_time()
            for each in work:
                batch.start(*each)
                batch.finish()
                passes += batch.passes
                drawn.append(batch.tokens_BN.clone())
            seconds = (time.process_time() - start) / images
            tokens = torch.cat(drawn)
            expected = tokens if expected is None else expected
            assert torch.equal(tokens, expected), f"{drafts} draws other tokens"
            given = images * (batch.tokens - 1) / passes
            rows.append({
                "task": task, "sampling": name, "guess": drafts.guess, "window": drafts.window, "tokens": given,
                "seconds": seconds,
            })  # fmt: skip
    return rows


def inputs(images: int) -> Iterator[tuple[str, list[Image.Image], list[str]]]:
    """Of each task of the embedded data sets so many, edits spread over their types: name, pictures given, texts."""
    edits = held_out_edits(COUNTS)
    edits = edits[:: len(edits) // images][:images]
    yield "edit", [Image.fromarray(render(edit.source)) for edit in edits], [edit.instruction for edit in edits]
    for task in TASKS:
        scenes = held_out_scenes(task)[:images]
        maps = [Image.fromarray(condition(scene, task)) for scene in scenes]
        yield task, maps, [translation_prompt(task, caption(scene), "released") for scene in scenes]
