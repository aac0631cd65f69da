"""Training a VQ tokenizer from scratch in CPU-minutes: a codebook of patches first, then encoder and decoder apart.

LlamaGen trains encoder, codebook and decoder together, with LPIPS and a discriminator, for days on GPUs. From a random
start that joint training crawls (the decoder waits for codes that mean something), so the miniature takes a short cut
that the paper does not have: k-means over the patches says which patches exist; each centroid gets a place on the
codebook's sphere; the encoder learns to send every patch there, and then the decoder to draw images from the encoder's
codes, each a plain supervised problem. Architecture, state dict and use are the real tokenizer's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.model.vq import VQModel

MOST_COUNTED = 8
TEMPERATURE = 0.05  # of the encoder's softmax over cosine similarities


def patches(images: Tensor, size: int) -> Tensor:
    """images (B, 3, H, W) -> flat patches (B, H / size * W / size, 3 * size * size), row by row."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


@torch.no_grad()
def patch_codebook(images: Tensor, size: int, codes: int, code_dim: int, rounds: int = 16) -> tuple[Tensor, Tensor]:
    """k-means over the patches of `images`: centroids (codes, 3 * size * size) and their codes (codes, code_dim).

    Equal patches count MOST_COUNTED times at most, or the backgrounds would get all the codes. A centroid that nobody
    chooses moves to one of the patches that are served worst. The codes are the centroids' principal components,
    dampened, on the unit sphere, then pushed apart, so that neighbours aren't mistaken for each other.
    """
    levels = (patches(images, size).flatten(0, 1) * 127.5).round().to(torch.int16)
    unique, count = levels.unique(dim=0, return_counts=True)
    flat, weight = unique.float() / 127.5, count.clamp(max=MOST_COUNTED).float()
    centroids = flat[torch.randperm(len(flat))[:codes]].clone()
    for _ in range(rounds):
        assigned, errors = [], []
        for part in flat.split(8192):
            distance = part.square().sum(1, keepdim=True) + centroids.square().sum(1) - 2 * part @ centroids.T
            error, index = distance.min(1)
            assigned.append(index)
            errors.append(error)
        index, error = torch.cat(assigned), torch.cat(errors) * weight
        mass = torch.zeros(codes).index_add_(0, index, weight)
        dead = (mass == 0).nonzero().flatten()
        centroids = (
            torch.zeros_like(centroids).index_add_(0, index, flat * weight[:, None]) / mass.clamp(min=1)[:, None]
        )
        worst = error.topk(min(4 * codes, len(flat))).indices
        centroids[dead] = flat[worst[torch.randperm(len(worst))[: len(dead)]]]
    return centroids, _on_sphere(centroids, code_dim)


def _on_sphere(centroids: Tensor, code_dim: int) -> Tensor:
    centred = centroids - centroids.mean(0)
    _, scale, axes = torch.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[: code_dim - 1].T / scale[: code_dim - 1].sqrt()
    components = components / components.square().sum(1).mean().sqrt()
    codes = F.normalize(torch.cat([components, torch.full((len(centroids), 1), 0.7)], dim=1), dim=1)
    identity = torch.eye(len(codes), dtype=torch.bool)
    for _ in range(300):
        closeness = (codes @ codes.T).masked_fill(identity, -1.0)
        weight = ((closeness - 0.9) / 0.02).exp()
        push = weight.sum(1, keepdim=True) * codes - weight @ codes
        codes = F.normalize(codes + 0.02 * push / push.norm(dim=1, keepdim=True).clamp(min=1.0), dim=1)
    return codes


def start_linear(model: nn.Module) -> None:
    """Start the convolutions of an autoencoder as one linear path.

    Each residual branch starts at zero and the other convolutions keep the variance: torch's default shrinks the signal
    by a half in each of them, and the decoder then needs twice the steps.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(("conv2", "proj_out")):
                nn.init.zeros_(module.weight)


def initialise(model: VQModel, codes: Tensor) -> None:
    """Set the codebook, which is not trained, and start the convolutions as `start_linear` does."""
    start_linear(model)
    model.quantize.embedding.weight.data.copy_(codes)
    model.quantize.embedding.weight.requires_grad_(False)


def encoder_loss(
    model: VQModel, images: Tensor, centroids: Tensor, distortion_weight: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy of each patch's nearest centroid under the softmax of cosine similarities of latents and codes,
    plus `distortion_weight` times the expected mean square error between the patch and the centroid of its code.

    images (B, 3, H, W) in [-1, 1]; centroids (codes, 3 * size * size). The second term makes it matter how far off a
    wrong code is; alone it starts too slowly.
    """
    flat = patches(images, model.config.downsampling)
    distances = flat.square().sum(-1, keepdim=True) + centroids.square().sum(1) - 2 * flat @ centroids.T
    indices = distances.argmin(-1)
    latents = F.normalize(model.latents(images).float().flatten(2).transpose(1, 2), dim=-1)
    similarity = latents @ model.quantize.embedding.weight.T
    logits = similarity / TEMPERATURE
    entropy = F.cross_entropy(logits.flatten(0, 1), indices.flatten())
    # Nearly the choice itself: neighbours on the sphere get no share.
    sharp = (similarity / (0.4 * TEMPERATURE)).softmax(-1)
    distortion = (sharp * distances).sum(-1).mean() / flat.shape[-1]
    accuracy = (similarity.argmax(-1) == indices).float().mean()
    return {
        "loss": entropy + distortion_weight * distortion, "distortion": distortion.detach(), "accuracy": accuracy
    }  # fmt: skip


def decoder_loss(model: VQModel, images: Tensor, gradient_weight: float = 0.25) -> dict[str, Tensor]:
    """Of the images as the encoder, which stays as it is, sees them: mean square error, plus `gradient_weight` times
    the L1 error of the image gradients, in units of [-1, 1]."""
    with torch.no_grad():
        indices = model.encode(images)
    error = model.decode(indices).float() - images
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squared = error.square().mean()
    return {"loss": squared + gradient_weight * slopes, "psnr": -10 * torch.log10(squared.detach() / 4)}
