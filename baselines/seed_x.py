"""SEED-X-Edit: a language model of 17 billion parameters that answers with the features of an image, which a
de-tokenizer (SDXL that sees the image to edit) turns into 1024 x 1024 pixels. It may also answer with text alone.

All of it pins old libraries and runs in its own environment, by `recipes/seed_x.toml`; resizing is ours.
"""

from baselines.external import External, read_recipe
from baselines.method import MethodContext
from baselines.recipes import SEED_X as RECIPE
from baselines.unified.files import refuse_miniature


def seed_x_edit(context: MethodContext) -> External:
    """Raises Unsupported in the miniature, and without the environment variables that the recipe names."""
    refuse_miniature("SEED-X-Edit", context)
    return External(read_recipe(RECIPE))
