"""The files of all methods, as `assets.toml` lists them, and the folder in which methods on Stable Diffusion look."""

from pathlib import Path

from baselines.method import MethodContext, Unsupported
from editar.io.assets import read_assets

ASSETS = read_assets(Path(__file__).with_name("assets.toml"))


def weights_folder(context: MethodContext, network: str = "diffusion") -> Path | None:
    """The folder to look in first: the user's, or the miniature's own, which holds `diffusion/`.

    network: what has to be in the miniature's own. Raises Unsupported where it has not been made.
    """
    if context.weights is not None or context.suite != "miniature":
        return context.weights
    from editar.pipeline import miniature_weights

    own = miniature_weights().parent
    if not (own / network).is_dir():
        raise Unsupported(
            f"of the miniature's networks {network}/ is not there; python -m benchmarks.miniature.build_diffusion "
            "trains them"
        )
    return own
