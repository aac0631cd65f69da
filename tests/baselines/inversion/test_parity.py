"""The final latents of the authors' own code on a tiny Stable Diffusion of the real topology, see tests/parity."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from baselines.inversion.base import InversionMethod
from baselines.inversion.masactrl import MasaCtrl, MasaCtrlSettings
from baselines.inversion.null_text import NullTextInversion, NullTextSettings
from baselines.inversion.pix2pix_zero import Pix2PixZero, Pix2PixZeroSettings
from baselines.inversion.prompt_to_prompt import PnPInversion, PromptToPrompt, PromptToPromptSettings
from baselines.method import EditRequest, MethodContext

PARITY = Path(__file__).parents[2] / "parity"
PHOTOGRAPH = PARITY / "pie_bench/annotation_images/1_change_object_80/1_artificial/100000000000.jpg"
STEPS = 4


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PARITY / "inversion_expected.safetensors")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> MethodContext:
    weights = tmp_path_factory.mktemp("official")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PARITY))  # for hashfill
        patch.setattr(sys, "argv", ["make_tiny_sd.py", str(weights / "stable-diffusion-v1-4")])
        runpy.run_path(str(PARITY / "make_tiny_sd.py"))
    (weights / "diffusion").symlink_to("stable-diffusion-v1-4")
    return MethodContext(suite="paper", weights=weights, device="cpu", image_side=512, cache=weights / "cache")


def edited(method: InversionMethod, *blend_words: tuple[str, str] | None) -> Tensor:
    """(2, B, 4, 64, 64): the photograph once for each of `blend_words`, in one batch."""
    method.load()
    requests = [
        EditRequest(
            sample_id=str(number),
            image=Image.open(PHOTOGRAPH).convert("RGB"),
            instruction="",
            source_prompt="a photo of a woman in an orange suit",
            target_prompt="a photo of a robot in an orange suit",
            blend_words=words,
            seed=0,
        )
        for number, words in enumerate(blend_words)
    ]
    return method.latents(requests)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.slow  # test_identities.py has small ones of each
@pytest.mark.parametrize(
    ("name", "kind", "settings", "tolerance"),
    [
        ("ddim+p2p", PromptToPrompt, PromptToPromptSettings(steps=STEPS), 1e-3),
        ("directinversion+p2p", PnPInversion, PromptToPromptSettings(steps=STEPS), 1e-3),
        ("null-text-inversion+p2p", NullTextInversion, NullTextSettings(steps=STEPS), 1e-2),
    ],
)
def test_prompt_to_prompt_on_each_inversion(official, expected, name, kind, settings, tolerance) -> None:
    plain, blended = edited(kind(official, settings), None, ("woman", "robot")).unbind(1)
    for branch in (0, 1):  # each by itself, so that neither drowns in the other's norm
        assert distance(plain[branch], expected[name][branch]) < tolerance
        assert distance(blended[branch], expected[f"{name}+blend"][branch]) < tolerance


@pytest.mark.slow
def test_masactrl(official, expected) -> None:
    found = edited(MasaCtrl(official, MasaCtrlSettings(steps=STEPS, first_step=1)), None)[:, 0]
    for branch in (0, 1):
        assert distance(found[branch], expected["masactrl"][branch]) < 1e-3


@pytest.mark.slow
def test_pix2pix_zero(official) -> None:
    expected = load_file(PARITY / "pix2pix_zero_expected.safetensors")["pix2pix-zero"]
    uncaptioned = replace(official, suite="miniature")  # inverts with the source prompt, as the expected values do
    found = edited(Pix2PixZero(uncaptioned, Pix2PixZeroSettings(steps=STEPS)), None)[:, 0]
    for branch in (0, 1):
        assert distance(found[branch], expected[branch]) < 1e-3
