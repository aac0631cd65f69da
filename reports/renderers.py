"""Which module renders the tables of which benchmark."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reports.destination import Destination
from reports.tables import ablations, piebench, translation

# render(paths, out, allow_partial, notes=..., plots=...) -> the files written
RENDERERS: dict[str, Callable[..., list[Path]]] = {
    "piebench": piebench.render,
    **{f"translation-{task}": partial(translation.render, task=task) for task in translation.COLUMNS},
    **{f"ablation-{axis}": partial(ablations.render, axis=axis) for axis in ablations.AXES},
}


def render(
    benchmark: str, run_dirs: Sequence[Path], place: Destination, *, allow_partial: bool, plots: bool
) -> list[Path]:
    """Writes the tables of these runs where they go, with the rows that stand beside theirs; returns the files."""
    paths = [*run_dirs, *place.committed]
    return RENDERERS[benchmark](paths, place.folder, allow_partial, notes=place.notes, plots=plots)
