"""SEED-X-Edit: a language model of 17 billion parameters that answers with the features of an image, which a
de-tokenizer (SDXL that sees the image to edit) turns into 1024 x 1024 pixels. It may also answer with text alone.

All of it pins old libraries and runs in its own environment, by `recipes/seed_x.toml`; resizing is ours.
"""

from dataclasses import replace

from baselines.assets import ASSETS
from baselines.external import External, read_recipe
from baselines.method import MethodCard, MethodContext, Requirements, refuse_miniature
from baselines.recipes import SEED_X as RECIPE
from editar.io.assets import locate

CHECKOUT = "${SEED_X}/"
FILES = locate((ASSETS[name] for name in ("seed-x-configs", "seed-x", "seed-x-eye", "seed-x-sdxl")), None)


class SeedXEdit(External):
    """Raises Unsupported in the miniature. Where an environment variable that the recipe names is not set, `settings`
    raises ValueError."""

    def __init__(self, context: MethodContext) -> None:
        refuse_miniature("SEED-X-Edit", context)
        super().__init__(read_recipe(RECIPE))
        self.card = MethodCard(
            kind="feed-forward", published_as="SEED-X-Edit", citation="arXiv 2404.14396", licence="SEED-X-17B's"
        )

    def requirements(self) -> Requirements:
        """The de-tokenizer's guidance takes three predictions in each step, as InstructPix2Pix' does."""
        recipe = self.recipe
        return Requirements(
            files=tuple(replace(file, path=recipe.found(CHECKOUT + file.name)) for file in FILES),
            passes={"language model": recipe.settings["new_tokens"], "UNet": 3 * recipe.settings["steps"]},
            unset=recipe.unset,
            note="every batch loads it all anew; the language model's passes are the most tokens that it writes",
        )
