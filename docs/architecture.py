"""The picture in architecture.md, drawn from the steps and imports below: `python -m docs.architecture` writes it anew.

tests/test_docs.py checks that the imports are those of the code, and that the committed file is what this draws.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from reports.plots.style import new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = Path(__file__).parent / "images" / "architecture.png"

# From record to table: each stage, the folder it belongs to, and a few words about it.
STEPS = (
    ("record", "benchmarks/datasets", "image, instruction,\nprompts, mask"),
    ("method", "baselines", "gets image and texts,\nnever the mask"),
    ("image", "benchmarks/runs", "PNG in the\nrun directory"),
    ("metrics", "metrics", "distances, SSIM, LPIPS,\nCLIP, FID, mIoU"),
    ("samples", "benchmarks/runs", "one row per image,\nParquet"),
    ("tables, gallery", "reports", "means with intervals,\npictures"),
)

# What each package may import of the others: packages, or the one module named.
IMPORTS: dict[str, tuple[str, ...]] = {
    "benchmarks": ("baselines", "metrics", "reports", "editar"),
    "baselines": ("editar",),
    "metrics": ("editar.io",),
    "reports": ("editar.io", "benchmarks.runs.schema"),
    "editar": (),
}

COLOURS = {
    "benchmarks": "#dce9f5",
    "baselines": "#fbe3d4",
    "metrics": "#d9efe6",
    "reports": "#f3e0ec",
    "editar": "#fdf0cc",
}
CAPTIONS = {
    "benchmarks": "data sets, runs, commands",
    "baselines": "methods: requests to images",
    "metrics": "images to numbers",
    "reports": "numbers to tables and pages",
    "editar": "the model, decoding, training; installable alone",
}
# Boxes of the lower half: centre x, centre y, width. All have the same height.
PLACES = {
    "benchmarks": (5.0, 3.0, 3.6),
    "baselines": (1.6, 1.75, 2.7),
    "metrics": (5.0, 1.75, 2.7),
    "reports": (8.4, 1.75, 2.7),
    "editar": (5.0, 0.45, 8.0),
}
HEIGHT = 0.62


def draw(path: Path = PICTURE) -> Path:
    """Writes the picture as PNG; the same bytes every time where matplotlib is the same."""
    with styled():
        figure = new_figure(8.6, 4.6)
        figure.set_layout_engine("none")  # the axes are the whole figure
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 10), ylim=(-0.05, 5.3))
        axes.axis("off")
        _steps(axes)
        _packages(axes)
        (written,) = save(figure, path.with_suffix(""), ("png",))
    return written


def _steps(axes: "Axes") -> None:
    axes.text(0.15, 5.1, "From record to table", weight="bold", va="center")
    width = 10 / len(STEPS)
    for i, (name, folder, what) in enumerate(STEPS):
        x = width * (i + 0.5)
        _box(axes, x, 4.62, width - 0.34, 0.42, COLOURS[folder.partition("/")[0]])
        axes.text(x, 4.62, name, ha="center", va="center", weight="bold")
        axes.text(x, 4.24, folder, ha="center", va="center", family="monospace", size=7)
        axes.text(x, 3.93, what, ha="center", va="center", size=7, color="#555555")
        if i:
            _arrow(axes, (x - width / 2 - 0.16, 4.62), (x - width / 2 + 0.16, 4.62))


def _packages(axes: "Axes") -> None:
    axes.text(0.15, 3.35, "What may import what", weight="bold", va="center")
    for name, (x, y, width) in PLACES.items():
        _box(axes, x, y, width, HEIGHT, COLOURS[name])
        axes.text(x, y + 0.1, f"{name}/", ha="center", va="center", weight="bold", family="monospace")
        axes.text(x, y - 0.15, CAPTIONS[name], ha="center", va="center", size=7.5, color="#333333")
    half = HEIGHT / 2
    _, top, _ = PLACES["benchmarks"]
    _, middle, _ = PLACES["baselines"]
    _, bottom, _ = PLACES["editar"]
    for name in IMPORTS["benchmarks"]:
        if name == "editar":  # passes metrics on its right
            _arrow(axes, (6.52, top - half), (6.52, bottom + half))
        else:
            x = PLACES[name][0]
            _arrow(axes, (5 + (x - 5) * 0.5, top - half), (x, middle + half))
    for name in ("baselines", "metrics", "reports"):
        x = PLACES[name][0]
        _arrow(axes, (x, middle - half), (x, bottom + half))
        (target,) = [each for each in IMPORTS[name] if each.startswith("editar")]
        if target != "editar":
            axes.text(x + 0.1, (middle + bottom) / 2, f"{target} only", va="center", size=7.5, family="monospace")
    (schema,) = [each for each in IMPORTS["reports"] if not each.startswith("editar")]
    _arrow(axes, (9.2, middle + half), (6.8, top), bend=0.3)
    axes.text(8.85, 3.32, f"{schema} only", va="center", ha="center", size=7.5, family="monospace")


def _box(axes: "Axes", x: float, y: float, width: float, height: float, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="#555555", lw=0.8))


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    arrow = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.0, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", xy=end, xytext=start, arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0})


if __name__ == "__main__":
    print(draw())
