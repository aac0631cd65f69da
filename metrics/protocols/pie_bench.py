"""The seven PIE-Bench columns, protocol `pie-bench/v1`, for several methods in one pass.

What depends on the source, the mask or the prompt alone is computed once for all methods. Where an image does not
define a value there is the reason instead, never 0 and never NaN:

- a mask that covers everything leaves no background: no PSNR, LPIPS, MSE, SSIM (the released evaluator's "nan");
- an empty mask leaves no edited part: no edited CLIP (likewise);
- without a mask nothing is known of background and edited part: neither their columns;
- identical backgrounds have an infinite PSNR. The released evaluator writes `inf`, and the column's mean becomes
  infinite; here that value is undefined and the mean is over the others. MSE 0, SSIM 1 and LPIPS 0 stand.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from metrics.functional import background
from metrics.functional.structure import self_similarity, structure_distance
from metrics.networks.backbones import PRECISIONS, Backbones
from metrics.scores import Scores

PIE_BENCH_COLUMNS = ("structure_distance", "psnr", "lpips", "mse", "ssim", "clip_whole", "clip_edited")
BACKGROUND_COLUMNS = ("psnr", "lpips", "mse", "ssim")

NO_BACKGROUND = "the mask covers the whole image: no background"
NO_MASK = "the record has no mask"
NO_EDITED_PART = "the mask is empty: no edited part"
INFINITE_PSNR = "identical background (infinite PSNR)"


class PieBenchScorer:
    """Scores batches of edits.

    precision "bfloat16" runs the networks of structure and CLIP in bfloat16; LPIPS, similarities and statistics stay
    float32. Backbones built in bfloat16 run as they are, others under autocast.
    """

    def __init__(self, backbones: Backbones, precision: str = "float32") -> None:
        if precision not in PRECISIONS or backbones.precision not in ("float32", precision):
            raise ValueError(f"backbones built in {backbones.precision} cannot score in {precision!r} (--precision)")
        self.backbones = backbones
        self.precision = precision

    @torch.inference_mode()
    def score(
        self,
        sources: Tensor,
        masks: Tensor,
        target_prompts: Sequence[str],
        edited: Mapping[str, Tensor],
        masked: Sequence[bool] | None = None,
    ) -> dict[str, list[Scores]]:
        """The columns of every method in `edited` (name to images), image by image: CLIP as a cosine floored at 0, PSNR
        in dB.

        sources and edited: (B, 3, H, W) in [0, 1], 8-bit images divided by 255; masks: (B, 1, H, W) bool, True where
        edited; target_prompts: B texts without brackets. masked: which images have a mask, None for all; the others'
        masks have to be empty. All tensors on one device.
        Raises ValueError for shapes or ranges that don't fit and for scores that are not finite.
        """
        _check(sources, masks, target_prompts, edited)
        images = torch.stack(list(edited.values()))
        known = [True] * len(sources) if masked is None else list(masked)
        table = self._structure(sources, images)
        table |= self._background(sources, masks, images, known)
        table |= self._clip(masks, target_prompts, images)
        values = {column: table[column].tolist() for column in PIE_BENCH_COLUMNS}
        missing = [_reasons(mask, has_mask) for mask, has_mask in zip(masks, known, strict=True)]
        return {
            name: _scores(name, {column: rows[m] for column, rows in values.items()}, missing)
            for m, name in enumerate(edited)
        }

    def _networks(self, device: torch.device) -> AbstractContextManager:
        enabled = self.precision != self.backbones.precision
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)

    def _structure(self, sources: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Edits equal to their source, pixel by pixel, have distance 0 and need no network."""
        methods, batch = images.shape[:2]
        changed = (images != sources).flatten(2).any(2)
        needed = changed.any(0)
        distances = torch.zeros(methods, batch, dtype=torch.float64)
        if needed.any():
            with self._networks(sources.device):
                keys = self.backbones.structure.keys(torch.cat([sources[needed], images[changed]]))
            of_source = self_similarity(keys[: int(needed.sum())])
            row = needed.cumsum(0) - 1
            where = changed.nonzero().tolist()
            for (m, b), own in zip(where, keys[int(needed.sum()) :], strict=True):
                source = of_source[row[b]]
                distances[m, b] = structure_distance(self_similarity(own[None]), source[None])[0]
        return {"structure_distance": distances}

    def _background(self, sources: Tensor, masks: Tensor, images: Tensor, known: list[bool]) -> dict[str, Tensor]:
        """Image by image: full-size feature maps of a whole batch would take gigabytes."""
        table = {name: torch.full(images.shape[:2], torch.nan, dtype=torch.float64) for name in BACKGROUND_COLUMNS}
        for b in (~masks.flatten(1).all(1)).nonzero()[:, 0].tolist():
            if not known[b]:
                continue
            source = background.outside(sources[b : b + 1], masks[b : b + 1])
            edits = background.outside(images[:, b], masks[b : b + 1])
            errors = background.mse(edits, source)
            perceptual = self.backbones.perceptual
            features = perceptual.features(source)
            distances = [perceptual.distance(perceptual.features(edit[None]), features) for edit in edits]
            table["mse"][:, b] = errors
            table["psnr"][:, b] = background.psnr(errors)
            table["ssim"][:, b] = background.ssim(edits, source, background.local_moments(source))
            table["lpips"][:, b] = torch.cat(distances)
        return table

    def _clip(self, masks: Tensor, target_prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        """The edited part of a mask that covers everything is the whole image: one pass serves both columns."""
        methods, batch = images.shape[:2]
        covered, filled = masks.flatten(1).all(1), masks.flatten(1).any(1)
        partial = filled & ~covered
        with self._networks(images.device):
            texts = self.backbones.clip.text_embedding(target_prompts)
            parts = images[:, partial] * masks[partial].to(images.dtype)
            embeddings = self.backbones.clip.image_embedding(torch.cat([images.flatten(0, 1), parts.flatten(0, 1)]))
        texts, embeddings = texts.float(), embeddings.float()
        whole = embeddings[: methods * batch].unflatten(0, (methods, batch))
        part = whole.clone()
        part[:, partial] = embeddings[methods * batch :].unflatten(0, (methods, -1))
        cosines = {"clip_whole": whole, "clip_edited": part}
        table = {name: (own * texts).sum(-1).clamp(min=0).double().cpu() for name, own in cosines.items()}
        table["clip_edited"][:, ~filled.cpu()] = torch.nan
        return table


def _reasons(mask: Tensor, has_mask: bool) -> dict[str, str]:
    """The columns that an image's mask leaves undefined, and why."""
    if not has_mask:
        return dict.fromkeys((*BACKGROUND_COLUMNS, "clip_edited"), NO_MASK)
    if mask.all():
        return dict.fromkeys(BACKGROUND_COLUMNS, NO_BACKGROUND)
    return {} if mask.any() else {"clip_edited": NO_EDITED_PART}


def _scores(method: str, rows: Mapping[str, list[float]], missing: Sequence[Mapping[str, str]]) -> list[Scores]:
    """NaN and infinity become the reason, from `missing` of each image; a value that should be finite and isn't is an
    error."""
    images: list[Scores] = [{} for _ in missing]
    for column, values in rows.items():
        for i, value in enumerate(values):
            if math.isfinite(value):
                images[i][column] = value
            elif column in missing[i]:
                images[i][column] = missing[i][column]
            elif column == "psnr":
                images[i][column] = INFINITE_PSNR
            else:
                raise ValueError(f"{column} of {method}, image {i} of the batch, is {value}: look at the weights")
    return images


def _check(sources: Tensor, masks: Tensor, target_prompts: Sequence[str], edited: Mapping[str, Tensor]) -> None:
    batch, _, height, width = sources.shape
    if not edited:
        raise ValueError("no method to score: `edited` is empty")
    if masks.shape != (batch, 1, height, width) or masks.dtype != torch.bool:
        raise ValueError(f"masks {tuple(masks.shape)} {masks.dtype} must be {(batch, 1, height, width)} torch.bool")
    if len(target_prompts) != batch:
        raise ValueError(f"{len(target_prompts)} prompts for {batch} images")
    for name, images in {"the sources": sources, **edited}.items():
        if images.shape != (batch, 3, height, width):
            raise ValueError(f"images of {name}: {tuple(images.shape)} must be {(batch, 3, height, width)}")
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # NaN fails both
            raise ValueError(f"images of {name}: values {low:.4g} to {high:.4g} must lie in [0, 1]")
