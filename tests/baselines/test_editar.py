"""EditAR and its tokenizer as methods, with small random weights in a folder of ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines import METHODS
from baselines.editar import EditARMethod
from baselines.method import EditRequest, MethodContext, TranslateRequest
from baselines.references import VQReconstruction
from editar.config import SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.model.checkpoint import save_folder
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel
from editar.pipeline import EditAR

SIDE = 16


def write_weights(folder: Path, seed: int = 0, guidance: float = 2.0) -> None:
    torch.manual_seed(seed)
    words = WordTextConfig(vocabulary=("make", "it", "red"), length=6, dim=16, layers=1, heads=2)
    size = TransformerConfig(layers=1, heads=2, dim=16, vocab_size=32, grid=4, text_length=6, text_dim=16)
    tokenizer = VQConfig(
        channels=8, multipliers=(1, 1, 1), res_blocks=1, latent_channels=8, codebook_size=32, norm_groups=4
    )
    parts = Parts(
        vq=VQModel(tokenizer),
        transformer=EditARTransformer(size),
        text=WordTextEncoder(words),
        sampling=SamplingConfig(guidance=guidance),
    )
    save_folder(folder, parts)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "editar")
    return folder


def context(weights: Path | None, suite: str = "miniature") -> MethodContext:
    return MethodContext(suite=suite, weights=weights, device="cpu", image_side=SIDE)


def requests(count: int) -> list[EditRequest]:
    rng = np.random.default_rng(0)
    return [
        EditRequest(
            sample_id=str(number),
            image=Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)),
            instruction="make it red",
            source_prompt="",
            target_prompt="",
            blend_words=None,
            seed=number,
        )
        for number in range(count)
    ]


def pixels(images: list[Image.Image]) -> list[bytes]:
    assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images)
    return [image.tobytes() for image in images]


@pytest.mark.parametrize("name", ["copy-source", "editar", "vq-reconstruction"])
def test_a_method_follows_seeds_and_not_batches(weights: Path, name: str) -> None:
    method = METHODS[name](context(weights))
    if load := getattr(method, "load", None):
        load()
    asked = requests(3)
    together = pixels(list(method.edit(asked)))  # type: ignore[arg-type]
    alone = [pixels(list(method.edit([request])))[0] for request in reversed(asked)]  # type: ignore[arg-type]
    assert together == alone[::-1]


@pytest.mark.parametrize(("samples", "width"), [(None, 8), (2, 2), (700, 8)])
def test_no_more_images_are_decoded_side_by_side_than_the_data_set_has(
    weights: Path, samples: int | None, width: int
) -> None:
    """Always as many, however many are asked for at once: other widths may round differently."""
    method = EditARMethod(replace(context(weights), samples=samples))
    method.load()
    assert method.width == width
    model = EditAR.from_pretrained(weights / "editar", width=width)
    for asked in (requests(3), requests(1)):
        expected = model.edit([each.image for each in asked], ["make it red"] * len(asked), seeds=range(len(asked)))
        assert pixels(method.edit(asked)) == pixels(expected)


def test_editar_is_the_pipeline_with_the_samples_seed(weights: Path) -> None:
    method = EditARMethod(context(weights))
    method.load()
    model = EditAR.from_pretrained(weights / "editar")
    asked = requests(2)
    expected = model.edit([request.image for request in asked], ["make it red"] * 2, seeds=[0, 1])
    assert pixels(method.edit(asked)) == pixels(expected)


@pytest.mark.parametrize("task", ["depth", "canny", "segmentation"])
def test_translation_is_the_pipelines_with_the_samples_seed(weights: Path, task: str) -> None:
    method = EditARMethod(context(weights))
    method.load()
    asked = [
        TranslateRequest(sample_id=each.sample_id, condition=each.image, caption="red", task=task, seed=each.seed)
        for each in requests(3)
    ]
    model = EditAR.from_pretrained(weights / "editar")
    expected = model.translate([each.condition for each in asked], ["red"] * 3, task=task, seeds=[0, 1, 2])
    together = pixels(method.translate(asked))
    assert together == pixels(expected)
    assert together[::-1] == [pixels(method.translate([each]))[0] for each in reversed(asked)]


def test_tasks_are_not_mixed(weights: Path) -> None:
    method = EditARMethod(context(weights))
    method.load()
    (image,) = requests(1)
    asked = [
        TranslateRequest(sample_id=task, condition=image.image, caption="red", task=task, seed=0)
        for task in ("depth", "canny")
    ]
    with pytest.raises(ValueError):
        method.translate(asked)


def test_the_reconstruction_is_the_pipelines(weights: Path) -> None:
    method = VQReconstruction(context(weights))
    method.load()
    asked = requests(2)
    expected = EditAR.from_pretrained(weights / "editar").reconstruct([request.image for request in asked])
    assert pixels(method.edit(asked)) == pixels(expected)


def test_settings_follow_the_weights_without_loading_them(weights: Path, tmp_path: Path) -> None:
    settings = EditARMethod(context(weights)).settings()
    assert settings["sampling"]["guidance"] == 2.0 and settings["dtype"] == "float32"
    assert set(settings["weights"]) == {"vq.safetensors", "transformer.safetensors", "text.safetensors"}
    write_weights(tmp_path, seed=1)  # the folder itself is as good as one that holds editar/
    other = EditARMethod(context(tmp_path)).settings()
    assert all(settings["weights"][name] != other["weights"][name] for name in settings["weights"])
    tokenizer = VQReconstruction(context(weights)).settings()
    assert tokenizer == {"weights": {"vq.safetensors": settings["weights"]["vq.safetensors"]}}


@pytest.mark.parametrize("name", ["editar", "vq-reconstruction"])
def test_missing_weights_are_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="--weights DIR"):
        METHODS[name](context(None, suite="paper")).settings()
    with pytest.raises(ValueError):
        METHODS[name](context(tmp_path)).settings()
