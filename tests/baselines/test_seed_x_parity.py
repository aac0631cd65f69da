"""SEED-X's networks, read from the official layout, against values of the authors' own classes (tests/parity)."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from baselines.llama import write
from baselines.seed_x.de_tokenizer import DeTokenizer
from baselines.seed_x.language_model import ImageTokens, LanguageModel
from tests.baselines.seed_x_layout import (
    PARITY,
    PARITY_TOKENS,
    TINY,
    TOKENIZER,
    published_state,
    tiny_de_tokenizer,
    tiny_language_model,
    write_tokenizer,
    write_weights,
)

VIEWS = (4, 70)  # where those of the expected prompt begin


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PARITY / "seed_x_expected.safetensors")


@pytest.fixture(scope="module")
def folder(expected: Mapping[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_weights(tmp_path_factory.mktemp("seed-x"), published_state(expected["boi_row"]))
    write_tokenizer(folder / TOKENIZER, {}, PARITY_TOKENS)
    return folder


@pytest.fixture(scope="module")
def language_model(folder: Path) -> LanguageModel:
    return tiny_language_model(folder)


@pytest.fixture(scope="module")
def de_tokenizer(folder: Path) -> DeTokenizer:
    return tiny_de_tokenizer(folder)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(1))


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_of_an_image(language_model: LanguageModel, pixels: Tensor, expected: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        seen = language_model.vision(pixels)
        assert_same(seen, expected["vit"])
        assert_same(language_model.agent.input_resampler(seen), expected["input_resampled"])
    assert_same(language_model.null_features(), expected["negative_features"])


def test_of_an_answer(language_model: LanguageModel, pixels: Tensor, expected: Mapping[str, Tensor]) -> None:
    """Published answers go on after the first image; what comes until then is the same."""
    prompt, answer = expected["prompt"].tolist(), expected["answer"].tolist()
    tokens = language_model.tokens
    assert prompt[VIEWS[0] : VIEWS[0] + 64] == prompt[VIEWS[1] : VIEWS[1] + 64] == list(tokens.image)
    with torch.no_grad():
        written = write(
            language_model.llm,
            prompt,
            language_model.embeddings(prompt, VIEWS, pixels),
            new_tokens=len(answer),
            ends=[tokens.end_of_text],
            processors=[ImageTokens(language_model.row)],
        )
        end = answer.index(tokens.end)
        assert written.tokens == prompt + answer
        assert_same(written.states[: len(prompt) : 8], expected["prompt_states_every_8th"])
        assert_same(written.states[len(prompt) + end - 64 : len(prompt) + end], expected["image_states"])
    said, features = language_model.respond(prompt, VIEWS, pixels)
    assert said == answer[: end + 1]
    assert features is not None
    assert_same(features, expected["image_features"])


@pytest.mark.parametrize(
    ("features", "embeddings", "pooled"),
    [("image_features", "prompt_embeds", "pooled"), ("negative_features", "negative_embeds", "negative_pooled")],
)
def test_of_a_prompt_for_diffusion(
    de_tokenizer: DeTokenizer, expected: Mapping[str, Tensor], features: str, embeddings: str, pooled: str
) -> None:
    with torch.no_grad():
        found = de_tokenizer.resampler(expected[features])
    assert_same(found[0], expected[embeddings])
    assert_same(found[1], expected[pooled])


def test_of_diffusion(de_tokenizer: DeTokenizer, expected: Mapping[str, Tensor]) -> None:
    seen = de_tokenizer.encode(Image.fromarray(expected["image"].numpy()))
    assert_same(seen, expected["image_latents"])
    latents = de_tokenizer.draw(
        seen,
        expected["image_features"],
        expected["negative_features"],
        expected["noise"],
        steps=TINY.steps,
        by_text=TINY.by_text,
        by_image=TINY.by_image,
    )
    assert_same(latents, expected["latents"])
    assert_same(de_tokenizer.decode(latents).permute(0, 2, 3, 1), expected["pixels"])
