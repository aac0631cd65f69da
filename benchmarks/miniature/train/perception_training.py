"""How the perception network is trained: attributes, maps and image-text pairs of the world."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.miniature.evaluate.perception import DENSE_HEADS, GLOBAL_HEADS, STRIDE, Perception, PerceptionConfig
from benchmarks.miniature.train.stages import settings, trained_weights
from benchmarks.miniature.world.edits import training_edits
from benchmarks.miniature.world.render import depth, render, segmentation, silhouette, through, to_tensor
from benchmarks.miniature.world.scene import BACKGROUNDS, CELL, SIDE, Scene, caption
from editar.model.vq import VQModel
from editar.training.loop import TrainConfig, train

IGNORED = 255


def dense_labels(scene: Scene) -> dict[str, np.ndarray]:
    """Labels of the dense heads at stride 2, (32, 32) uint8."""
    pick = slice(STRIDE // 2, None, STRIDE)
    labels = {name: np.full((SIDE, SIDE), IGNORED, np.uint8) for name in DENSE_HEADS}
    labels["segmentation"] = segmentation(scene)
    for thing in scene.things:
        rows, columns = thing.cells
        box = slice(rows.start * CELL, rows.stop * CELL), slice(columns.start * CELL, columns.stop * CELL)
        for name in ("colour", "material", "content"):
            labels[name][box][silhouette(thing)] = DENSE_HEADS[name].index(getattr(thing, name))
        labels["flipped"][box][silhouette(thing)] = int(thing.flipped)
    return {name: label[pick, pick] for name, label in labels.items()}


def labelled_batch(network: Perception, scenes: list[Scene]) -> dict[str, Tensor]:
    """Pictures and ground truth of `scenes`: "images", "texts", "depth" (B, 32, 32) in [0, 1], and the labels of every
    head: (B, 32, 32) of dense ones, with 255 where a head has nothing to say, (B,) of the others."""
    dense = [dense_labels(scene) for scene in scenes]
    nearness = np.stack([depth(scene)[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] for scene in scenes])
    return {
        "images": to_tensor([render(scene) for scene in scenes]),
        "texts": network.text.tokenize([caption(scene) for scene in scenes]),
        "depth": torch.from_numpy(nearness).float() / 255,
        **{name: torch.from_numpy(np.stack([labels[name] for labels in dense])).long() for name in DENSE_HEADS},
        **{
            name: torch.tensor([names.index(getattr(scene, name)) for scene in scenes])
            for name, names in GLOBAL_HEADS.items()
        },
    }


class Restored:
    """Scenes whose pictures have been through the tokenizer, made once: three quarters of every batch while adapting,
    since the pictures that the heads will judge have been through it too."""

    SCENES = 6144

    def __init__(self, tokenizer: VQModel) -> None:
        stream = training_edits(settings("adapting").seed + 1, -1)
        self.scenes: list[Scene] = []
        while len(self.scenes) < self.SCENES:
            edit = next(stream)
            self.scenes += [edit.source, edit.target]
        self.images = restore(tokenizer, [render(scene) for scene in self.scenes])


@torch.inference_mode()
def restore(tokenizer: VQModel, images: list[np.ndarray]) -> Tensor:
    """uint8 pictures through the tokenizer, (n, 3, 64, 64) in [-1, 1]."""
    device = next(tokenizer.parameters()).device
    return through(lambda part: tokenizer.decode(tokenizer.encode(part)), images, device).clamp(-1, 1)


def perception_batch(
    network: Perception, restored: Restored | None, config: TrainConfig, step: int
) -> dict[str, Tensor]:
    """Both sides of each edit share the batch, so that captions one change apart are told apart."""
    scenes: list[Scene] = []
    for edit in training_edits(config.seed + 1, step):
        scenes += [edit.source, edit.target]
        if len(scenes) >= config.batch_size // (1 if restored is None else 4):
            break
    if restored is None:
        batch = labelled_batch(network, scenes)
        return {**batch, "images": disturb(batch["images"])}
    first = 2 * torch.randint(len(restored.scenes) // 2, (3 * config.batch_size // 8,))
    rows = torch.stack([first, first + 1], 1).flatten()
    batch = labelled_batch(network, scenes + [restored.scenes[row] for row in rows.tolist()])
    images = torch.cat([batch["images"][: len(scenes)], restored.images[rows]])
    return {**batch, "images": disturb(images)}


def disturb(images: Tensor) -> Tensor:
    """Noise, blur and colour shifts of random strength, for each image its own; half of them stay as they are."""
    batch = len(images)
    images = images + 0.06 * torch.rand(batch, 1, 1, 1) * (torch.rand(batch, 1, 1, 1) < 0.5) * torch.randn_like(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    weight, pick = torch.rand(2, batch, 1, 1, 1)
    images = torch.where(pick < 0.25, weight * blurred + (1 - weight) * images, images)
    images = torch.where(pick > 0.75, weight * coarse + (1 - weight) * images, images)
    shift = 0.1 * torch.randn(batch, 3, 1, 1) * (torch.rand(batch, 1, 1, 1) < 0.5)
    return (images + shift).clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def perception_loss(network: Perception, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """Sum of the heads' cross-entropies, the depth error and the symmetric contrastive loss."""
    maps = network.features(batch["images"])
    out = network.predict(maps)
    losses = {
        name: F.cross_entropy(out[name].float(), batch[name], ignore_index=IGNORED)
        for name in DENSE_HEADS
        if (batch[name] != IGNORED).any()
    }
    losses |= {name: F.cross_entropy(out[name].float(), batch[name]) for name in GLOBAL_HEADS}
    # Most pixels are background: without a term of their own the shapes are hardly learned.
    shapes = batch["segmentation"].where(batch["segmentation"] >= len(BACKGROUNDS), IGNORED)
    losses["shape"] = F.cross_entropy(out["segmentation"].float(), shapes, ignore_index=IGNORED)
    losses["depth"] = (out["depth"][:, 0].float() - batch["depth"]).abs().mean()
    texts = batch["texts"]
    logits = network.embed_images(maps) @ network.embed_texts(texts).T * network.temperature.exp().clamp(max=50)
    same = (texts[:, None] == texts[None]).all(-1).float()  # pose edits can leave the caption as it was
    goal = same / same.sum(1, keepdim=True)
    losses["contrastive"] = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)) / 2
    return {"loss": torch.stack(list(losses.values())).sum(), **{k: v.detach() for k, v in losses.items()}}


def train_perception(folder: Path, device: str = "cpu") -> None:
    """Train from scratch on the world's own pictures, or from where `folder` stopped."""
    config = settings("perception")
    torch.manual_seed(config.seed)
    _train(Perception(PerceptionConfig()), lambda: None, config, folder, device)


def adapt_perception(trained: Path, tokenizer: VQModel, folder: Path, device: str = "cpu") -> None:
    """Go on from the end of `train_perception`, with pictures that have been through the tokenizer in every batch."""
    network = Perception(PerceptionConfig())
    network.load_state_dict(trained_weights(trained))
    restored = cache(lambda: Restored(tokenizer))  # made when a step needs it
    _train(network, restored, settings("adapting"), folder, device)


def _train(
    network: Perception, restored: Callable[[], Restored | None], config: TrainConfig, folder: Path, device: str
) -> None:
    network = network.to(device).to(memory_format=torch.channels_last)

    def batch(step: int) -> dict[str, Tensor]:
        return {name: each.to(device) for name, each in perception_batch(network, restored(), config, step).items()}

    train(network, perception_loss, batch, config, folder)
