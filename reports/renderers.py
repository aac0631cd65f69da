"""Which module renders the tables of which benchmark."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from reports import ablations, piebench, translation

# render(paths, out, allow_partial, notes=..., plots=...) -> the files written
RENDERERS: dict[str, Callable[..., list[Path]]] = {
    "piebench": piebench.render,
    **{f"translation-{task}": partial(translation.render, task=task) for task in translation.COLUMNS},
    "ablation-guidance": ablations.render_guidance,
    "ablation-distillation": ablations.render_distillation,
}
