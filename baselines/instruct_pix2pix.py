"""InstructPix2Pix, MagicBrush, InstructDiffusion: the same architecture, tuned on other edits.

What is fetched are the authors' own checkpoints, since these say which weights they hold: InstructPix2Pix' code, which
is MagicBrush's too, edits with the moving average of the U-Net's weights, and InstructDiffusion's file was converted
from it. Of the ports to diffusers, vinesmsuic/magicbrush-jul7 is not made from the average (its maker has a second one,
magicbrush-ema, that is), and timbrooks/instruct-pix2pix leaves it open.
"""

from dataclasses import replace

from baselines.assets import ASSETS
from baselines.instruct.instructed import Instructed, InstructedDiffusion
from baselines.method import MethodCard, MethodContext

# The settings of PnPInversion's run_editing_instructpix2pix.py.
INSTRUCT_PIX2PIX = Instructed(
    card=MethodCard(kind="feed-forward", published_as="InstructPix2Pix", citation="arXiv 2211.09800", licence="MIT"),
    checkpoint=ASSETS["instruct-pix2pix/instruct-pix2pix-00-22000.ckpt"],
    averaged=True,
    port=ASSETS["instruct-pix2pix"],
    miniature=ASSETS["diffusion/instruct-pix2pix"],
    steps=50,
    by_text=7.5,
    by_image=1.5,
    guidance="instruct-pix2pix",
)
# Chosen by benchmarks/miniature/evaluate/instruct.py, on other edits than the tables': at 7.5 the background keeps 4 dB
# less, and fewer instructions are followed.
MINIATURE_INSTRUCT_PIX2PIX = replace(INSTRUCT_PIX2PIX, by_text=3.0)
MAGICBRUSH = replace(
    INSTRUCT_PIX2PIX,
    card=MethodCard(
        kind="feed-forward",
        published_as="MagicBrush",
        citation="arXiv 2306.10012",
        licence="CreativeML OpenRAIL-M",
    ),
    checkpoint=ASSETS["InstructPix2Pix-MagicBrush/MagicBrush-epoch-52-step-4999.ckpt"],
    port=ASSETS["magicbrush-jul7"],
    steps=100,
)
# The settings of PnPInversion's run_editing_instructdiffusion.py.
INSTRUCT_DIFFUSION = replace(
    INSTRUCT_PIX2PIX,
    card=MethodCard(
        kind="feed-forward",
        published_as="InstructDiffusion",
        citation="arXiv 2309.03895",
        licence="MIT, and Stable Diffusion's",
    ),
    checkpoint=ASSETS["v1-5-pruned-emaonly-adaption-task.ckpt"],
    averaged=False,
    port=ASSETS["instruct-diffusion"],
    by_text=5.0,
    by_image=1.25,
    guidance="instruct-diffusion",
)


def instruct_pix2pix(context: MethodContext, dtype: str = "float32") -> InstructedDiffusion:
    row = MINIATURE_INSTRUCT_PIX2PIX if context.suite == "miniature" else INSTRUCT_PIX2PIX
    return InstructedDiffusion(context, row, dtype)


def magicbrush(context: MethodContext, dtype: str = "float32") -> InstructedDiffusion:
    return InstructedDiffusion(context, MAGICBRUSH, dtype)


def instruct_diffusion(context: MethodContext, dtype: str = "float32") -> InstructedDiffusion:
    return InstructedDiffusion(context, INSTRUCT_DIFFUSION, dtype)
