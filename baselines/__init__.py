"""The methods that edit and those that translate, by name, and their cheap constructors: networks come with `load`."""

from collections.abc import Callable

from baselines.controlnet import controlnet, controlnet_plus_plus, t2i_adapter
from baselines.editar import EditARMethod
from baselines.instruct_pix2pix import instruct_diffusion, instruct_pix2pix, magicbrush
from baselines.inversion.masactrl import MasaCtrl
from baselines.inversion.null_text import NullTextInversion
from baselines.inversion.pix2pix_zero import Pix2PixZero
from baselines.inversion.prompt_to_prompt import PnPInversion, PromptToPrompt
from baselines.method import Method, MethodContext, Translator
from baselines.mgie.mgie import MGIE
from baselines.references import CopySource, VAEReconstruction, VQReconstruction
from baselines.seed_x.seed_x import SeedXEdit
from baselines.unified.methods import uni_controlnet, unicontrol

METHODS: dict[str, Callable[[MethodContext], Method]] = {
    "copy-source": CopySource,
    "vq-reconstruction": VQReconstruction,
    "vae-reconstruction": VAEReconstruction,
    "editar": EditARMethod,
    "instruct-pix2pix": instruct_pix2pix,
    "magicbrush": magicbrush,
    "instruct-diffusion": instruct_diffusion,
    "mgie": MGIE,
    "seed-x-edit": SeedXEdit,
    "prompt-to-prompt": PromptToPrompt,
    "null-text-inversion": NullTextInversion,
    "pnp-inversion": PnPInversion,
    "pix2pix-zero": Pix2PixZero,
    "masactrl": MasaCtrl,
}
# Rows that `nox -s piebench` makes without being asked for more: the references, and what takes well below a second an
# image in the miniature on two CPU cores. A row that the suite has no networks for is left out.
QUICK = frozenset({"copy-source", "vq-reconstruction", "vae-reconstruction", "editar", "instruct-pix2pix"})
# In the order of the paper's Table 2.
TRANSLATORS: dict[str, Callable[[MethodContext], Translator]] = {
    "t2i-adapter": t2i_adapter,
    "uni-controlnet": uni_controlnet,
    "unicontrol": unicontrol,
    "controlnet": controlnet,
    "controlnet-plus-plus": controlnet_plus_plus,
    "editar": EditARMethod,
}
