"""What EditAR is distilled from: preparation as published, the patches in their places, and the loss by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BitImageProcessor, CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from editar.model.transformer import EditARTransformer
from editar.training.data.mixture import Batch
from editar.training.distributed import Group
from editar.training.loss import editar_loss, on_grid_of
from editar.training.teachers import DistillationConfig, Teacher
from editar.training.train import Objective, Student

SMALL: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """Both encoders, with random weights and narrow, but of the published patches and sides."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**SMALL, image_size=518, patch_size=14)).save_pretrained(folder / "dinov2")
    vision = CLIPVisionConfig(**SMALL, intermediate_size=48, image_size=224, patch_size=16)
    CLIPVisionModel(vision).save_pretrained(folder / "clip")
    return {name: str(folder / name) for name in ("dinov2", "clip")}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth pictures, uint8 (2, 3, 512, 512): noise would only measure the filters."""
    torch.manual_seed(0)
    small = torch.rand(2, 3, 9, 9)
    return (torch.nn.functional.interpolate(small, (512, 512), mode="bicubic").clamp(0, 1) * 255).byte()


def teacher(sources, name: Any, crop: Any = "released") -> Teacher:
    return Teacher(DistillationConfig(teacher=name, crop=crop, source=sources[name]), torch.device("cpu"))


def test_images_are_prepared_as_dinov2s_published_processor_does(sources, images):
    published = BitImageProcessor(
        do_resize=True, size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_center_crop=True,
        resample=3, do_rescale=True, do_normalize=True, image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225], do_convert_rgb=True,
    )  # fmt: skip
    expected = published(list(images), return_tensors="pt")["pixel_values"]
    assert (teacher(sources, "dinov2").prepare(images) - expected).abs().max() < 0.03  # a level of 255 is 0.017


@pytest.mark.parametrize(("name", "patches"), [("dinov2", 256), ("clip", 196)])
def test_features_are_those_of_the_patches(sources, images, name, patches):
    made = teacher(sources, name)
    features = made(images)
    assert features.shape == (2, patches, 24) and not features.requires_grad
    hidden = made.model(pixel_values=made.prepare(images)).last_hidden_state
    assert torch.equal(features, hidden[:, 1:])


def test_aligned_sees_all_of_the_image_and_released_its_middle(sources):
    images = torch.zeros(1, 3, 512, 512, dtype=torch.uint8)
    images[..., :20] = 255  # a bright left edge, outside of the middle
    edges = {
        crop: teacher(sources, "dinov2", crop).prepare(images)[0, 0, 100, 2].item() for crop in ("released", "aligned")
    }
    assert edges["released"] == pytest.approx(-0.485 / 0.229, abs=0.01)
    assert edges["aligned"] == pytest.approx((1 - 0.485) / 0.229, abs=0.01)


def test_the_students_grid_is_resampled_to_the_teachers():
    place = torch.linspace(0, 1, 16)
    student = torch.stack([place.expand(16, 16).T.flatten(), place.expand(16, 16).flatten()], dim=1)[None]
    resampled = on_grid_of(torch.zeros(1, 196, 2), student)
    rows = resampled[0, :, 0].view(14, 14)
    assert rows.std(dim=1).max() < 1e-6 and (rows[1:, 0] > rows[:-1, 0]).all()  # rows stay rows, in their order
    assert torch.allclose(rows.T.flatten(), resampled[0, :, 1], atol=1e-6)
    assert on_grid_of(student, student) is student
    with pytest.raises(ValueError, match="alignment"):
        on_grid_of(torch.zeros(1, 196, 5), student)


def test_the_weight_of_the_distillation(tiny, tiny_expected):
    features = torch.zeros_like(tiny_expected["features"])
    source, text, target = (tiny_expected[name] for name in ("src", "txt", "tgt"))
    values = editar_loss(tiny, source, text, target, teacher=features, distillation_weight=0.25)
    square = sum(value**2 for value in tiny_expected["features"].flatten().tolist()) / features.numel()
    assert values["distillation"].item() == pytest.approx(square, rel=1e-4)
    assert values["loss"].item() == pytest.approx(tiny_expected["loss"].item() + 0.25 * square, rel=1e-4)


def test_the_objective_shows_the_teacher_the_target(sources, small_parts):
    """Through the trainer's own path, at another weight than the paper's."""
    transformer = EditARTransformer(replace(small_parts.transformer.config, distillation_dim=24)).eval()
    parts, made = replace(small_parts, transformer=transformer), teacher(sources, "dinov2")
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        origins=["a", "b"], tasks=["edit"] * 2, texts=["make it red", "blue"], source=images, target=images.flip(3),
        skipped=[],
    )  # fmt: skip
    objective = Objective(parts, made, 0.25, seed=3, group=Group(device=torch.device("cpu")))
    values = objective(Student(transformer), batch, 0)
    hidden = transformer.features(
        objective.tokens(images), parts.text(batch.texts), objective.tokens(images.flip(3)), *objective.nulls(batch)
    )
    features = made(images.flip(3))
    student = on_grid_of(features, transformer.distillation_features(hidden))
    assert values["distillation"].item() == pytest.approx((student - features).square().mean().item(), rel=1e-5)
    expected = values["cross_entropy"] + 0.25 * values["distillation"]
    assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_missing_teacher_is_named():
    with pytest.raises(FileNotFoundError, match="dinov2-base"):
        Teacher(DistillationConfig(source="/no/such/folder"), torch.device("cpu"))
