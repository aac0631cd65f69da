"""The training of EditAR, from settings to a model: what a batch becomes, its loss, and what a run leaves."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from editar.config import TransformerConfig
from editar.decoding.decoder import Decoder
from editar.images import contact_sheet, to_image
from editar.io.atomic import append_text
from editar.io.image_files import write_png
from editar.model.checkpoint import FILES, save_folder, save_transformer
from editar.model.files import Parts
from editar.model.t5 import T5TextEncoder
from editar.model.transformer import EditARTransformer
from editar.training.checkpoints import Run, SharedStore
from editar.training.data.mixture import Batch, data_digests, loader
from editar.training.distributed import Group, join, leave, share_out, whole
from editar.training.log import Work, forget_after
from editar.training.loop import Values, train
from editar.training.loss import conditional_dropout, editar_loss
from editar.training.settings import DIGESTS, FREE, Config, keep
from editar.training.start import checkpoint_activations, compile_layers, frozen, load_start, start_digests
from editar.training.teachers import Teacher
from editar.training.token_cache import TokenCache, digest

if TYPE_CHECKING:
    from torchdata.stateful_dataloader import StatefulDataLoader

ENCODED_TOGETHER = 16  # images in the tokenizer, whose first layers are large


class Student(nn.Module):
    """The loss as a module's output: FSDP hooks into a module's forward."""

    def __init__(self, transformer: EditARTransformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, *inputs: Any, **more: Any) -> Values:
        """As `editar_loss`."""
        return editar_loss(self.transformer, *inputs, **more)


def run(config: Config) -> None:
    """Train, or go on with what `config.out` holds; the trained model is in `config.out / "model"` then."""
    group = join(config.device)
    parts_of_step = config.training.accumulate * group.size
    if config.training.batch_size % parts_of_step:
        raise ValueError(
            f"training.batch_size is {config.training.batch_size}, which can't be shared out evenly to {group.size} "
            f"processes with training.accumulate {config.training.accumulate}"
        )
    dtype = torch.bfloat16 if config.training.bfloat16 else torch.float32
    teacher = Teacher(config.distillation, group.device, dtype) if config.distillation.teacher != "none" else None
    digests: dict[str, Any] = {}
    if group.first:
        digests = {"start": start_digests(config.model), "data": data_digests(config.data)}
        if teacher:
            digests["teacher"] = digest(teacher.model).hex()
    keep({**asdict(config), DIGESTS: group.all(digests)[0]}, config.out, FREE, write=group.first)
    torch.manual_seed(config.training.seed)  # of what no file initialises, alike in all processes
    parts = frozen(load_start(config.model), group.device, dtype)
    if config.model.activation_checkpointing:
        checkpoint_activations(parts.transformer)
    if config.model.compiled:
        compile_layers(parts.transformer)
    side = parts.transformer.config.grid * parts.vq.config.downsampling
    size = config.training.batch_size // parts_of_step
    stream = Stream(loader(config.data, side, size, rank=group.rank, processes=group.size), config.out, group)
    cache = TokenCache(config.token_cache, parts.vq) if config.token_cache else None
    objective = Objective(parts, teacher, config.distillation.weight, config.training.seed, group, cache)
    student = Student(parts.transformer)
    share_out(student, parts.transformer.layers, group, config.shards)

    def saved(training: Run) -> None:
        weights = whole(training.weights(), group)
        if group.first:
            trained = replace(parts, transformer=_transformer(parts.transformer.config, weights))
            _export(config.out / "model", trained)
            if config.previews and stream.last is not None:
                trained.transformer.to(group.device)
                picture = preview(objective, trained, stream.last, config.previews)
                (config.out / "previews").mkdir(exist_ok=True)
                write_png(picture, config.out / "previews" / f"{training.step:07d}.png", writer="training")

    train(
        student,
        objective,
        stream,
        config.training,
        config.out,
        group=group,
        store=SharedStore(config.out, group),
        work=work(parts.transformer.config),
        names=lambda batch: batch.origins,
        saved=saved,
    )
    leave(group)


def _export(folder: Path, trained: Parts) -> None:
    """What inference reads. The frozen parts, of which a T5 has gigabytes, are written the first time only."""
    if all((folder / name).is_file() for name in FILES):
        save_transformer(folder, trained.transformer, trained.sampling)
    else:
        save_folder(folder, trained)


def _transformer(config: TransformerConfig, weights: Mapping[str, Tensor]) -> EditARTransformer:
    transformer = EditARTransformer(config)
    transformer.load_state_dict({name.removeprefix("transformer."): value for name, value in weights.items()})
    return transformer.eval()


class Stream:
    """The batches of a loader, with its position. Skipped rows are written to `skipped.jsonl`, by others than the first
    process with their number in the name."""

    def __init__(self, batches: "StatefulDataLoader", folder: Path, group: Group) -> None:
        self.batches = batches
        self.skipped = folder / ("skipped.jsonl" if group.first else f"skipped-{group.rank}.jsonl")
        self.taken = 0
        self.last: Batch | None = None
        self._iterator: Iterator[Batch] | None = None

    def __call__(self, index: int) -> Batch:
        if self._iterator is None:
            self._iterator = iter(self.batches)
        self.last = replace(next(self._iterator), number=index)
        self.taken = index + 1
        if self.last.skipped:
            lines = [json.dumps({"batch": self.taken, "row": fault}) + "\n" for fault in self.last.skipped]
            append_text(self.skipped, "".join(lines))
        return self.last

    def state_dict(self) -> dict:
        return {"position": self.batches.state_dict(), "taken": self.taken}

    def load_state_dict(self, state: dict) -> None:
        self.batches.load_state_dict(state["position"])
        self.taken = state["taken"]
        forget_after(self.skipped, self.taken, "batch")


class Objective:
    """The loss of a batch: tokens, text embeddings and teacher's features are made here, without gradients."""

    def __init__(
        self,
        parts: Parts,
        teacher: Teacher | None,
        distillation_weight: float,
        seed: int,
        group: Group,
        cache: TokenCache | None = None,
    ) -> None:
        self.vq, self.teacher, self.weight = parts.vq, teacher, distillation_weight
        self.text = parts.text.together if isinstance(parts.text, T5TextEncoder) else parts.text
        self.seed, self.group, self.device, self.cache = seed, group, group.device, cache

    def __call__(self, model: Callable[..., Values], batch: Batch, step: int) -> Values:
        """`model` is a Student."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):  # the tokenizer is a float32 one
            condition, tokens, text = self.tokens(batch.source), self.tokens(batch.target), self.text(batch.texts)
            features = self.teacher(batch.target.to(self.device)) if self.teacher else None
        null_image, null_text = (null.to(self.device) for null in self.nulls(batch))
        values = model(
            condition, text, tokens, null_image, null_text, teacher=features,
            distillation_weight=self.weight, tasks=batch.tasks,
        )  # fmt: skip
        return {**values, "skipped": torch.tensor(float(len(batch.skipped)))}

    def nulls(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Conditional dropout as drawn for all processes together, of which this one has every size-th sample."""
        generator = torch.Generator().manual_seed((self.seed << 32) + batch.number)
        image, text = conditional_dropout(len(batch.texts) * self.group.size, generator)
        return image[self.group.rank :: self.group.size], text[self.group.rank :: self.group.size]

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, side, side) on the CPU -> token indices (B, N) on the device."""
        return (self.cache(images, self._encode) if self.cache else self._encode(images)).to(self.device)

    def _encode(self, images: Tensor) -> Tensor:
        parts = (images.to(self.device).float() / 127.5 - 1).split(ENCODED_TOGETHER)
        return torch.cat([self.vq.encode(part) for part in parts])


def work(config: TransformerConfig) -> Work:
    """What a training sample costs: as torchtitan counts, all of attention, no recomputation, no frozen network.

    Six operations a weight and token: two forward, four backward.
    """
    tokens = 2 * config.image_tokens + config.text_length - 1
    layer = 4 * config.dim**2 + 3 * config.dim * config.ffn_dim
    weights = config.layers * layer * tokens
    weights += config.vocab_size * config.dim * config.image_tokens  # logits of the target's positions only
    weights += (config.text_dim + config.dim) * config.dim * config.text_length
    return Work(tokens=tokens, operations=6.0 * weights + 12.0 * config.layers * config.dim * tokens**2)


@torch.no_grad()
def preview(objective: Objective, parts: Parts, batch: Batch, count: int) -> Image.Image:
    """The first `count` samples of a batch, one a row: source, target, and what the model makes of the source."""
    source, target = batch.source[:count], batch.target[:count]
    text = parts.text(batch.texts[:count])
    made = Decoder(parts.transformer).generate(objective.tokens(source), text, range(len(source)), parts.sampling)
    columns = (source / 127.5 - 1, target / 127.5 - 1, torch.cat([parts.vq.decode(row) for row in made.split(1)]))
    return contact_sheet([to_image(image) for row in zip(*columns, strict=True) for image in row], len(columns), gap=0)
