"""Command line: `python -m editar edit | translate | train | convert`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

if TYPE_CHECKING:
    from PIL import Image

    from editar.pipeline import EditAR


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model and how its tokens are drawn."""

    weights: Path | None = None
    """A model's folder; the miniature if not given."""
    guidance: float | None = None
    """Strength of the text (paper, eq. 5); the model's own if not given."""
    seed: int = 0
    """Another seed draws another image."""
    device: str = "cpu"
    """For instance cpu or cuda."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the transformer; the published runs use bfloat16."""

    def load(self) -> "EditAR":
        from editar.pipeline import EditAR

        return EditAR.from_pretrained(self.weights, device=self.device, dtype=self.dtype)


Flags = Annotated[ModelFlags, OmitArgPrefixes]
DEFAULTS = ModelFlags()


def edit(
    image: Positional[Path],
    instruction: Positional[str],
    /,
    *,
    out: Path = Path("edited.png"),
    model: Flags = DEFAULTS,
) -> None:
    """Edit an image as an instruction says.

    Args:
        image: The image to edit.
        instruction: What to change, for instance "make it snow".
        out: Where to write the result.
    """
    from editar.images import open_image

    source = open_image(image)
    _save(model.load().edit([source], [instruction], guidance=model.guidance, seeds=[model.seed]), out)


def translate(
    condition: Positional[Path],
    caption: Positional[str],
    /,
    *,
    task: Literal["depth", "canny", "segmentation"],
    out: Path = Path("translated.png"),
    template: Literal["released", "paper"] = "released",
    model: Flags = DEFAULTS,
) -> None:
    """Make an image from a depth, canny or segmentation map and a caption.

    Args:
        condition: The map, as an image.
        caption: What the image shows.
        task: What kind of map it is.
        out: Where to write the result.
        template: Wording of the prompt: the released checkpoint's or the paper's.
    """
    from editar.images import open_image

    source = open_image(condition)
    made = model.load().translate(
        [source], [caption], task=task, template=template, guidance=model.guidance, seeds=[model.seed]
    )
    _save(made, out)


def convert(folder: Positional[Path], out: Positional[Path], /, *, text: str | None = None, half: bool = False) -> None:
    """Turn the authors' files (editar_release.pt, vq_ds16_t2i.pt) into a folder of safetensors.

    Args:
        folder: Where the authors' files are.
        out: The folder to write.
        text: Folder or hub id of the T5 text encoder, written down by name; flan-t5-xl/ in the folder, or the
            hub's google/flan-t5-xl, if not given.
        half: Store float16 instead of float32.
    """
    import torch

    from editar.checkpoint import save_folder
    from editar.pipeline import load_official

    save_folder(out, load_official(folder, text), dtype=torch.float16 if half else torch.float32)
    print(out)


def train(config: Positional[Path], /) -> None:
    """Train or fine-tune a model; `train CONFIG --help` lists the flags that change single settings of the file.

    Args:
        config: The settings, a TOML file like those in configs/.
    """
    _train(config, ())


def _train(config: Path, flags: Sequence[str]) -> None:
    try:
        from editar.training.recipe import run
        from editar.training.settings import parse
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs {error.name}: install the extra `train`, editar-bench[train]") from error
    settings = parse(config, flags)
    run(settings)
    print(settings.out / "model")


def _save(images: "list[Image.Image]", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path)
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 after an error that the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["train"] and len(words) > 1 and not words[1].startswith("-"):
            _train(Path(words[1]), words[2:])  # its flags are only known once the file is read
        else:
            tyro.extras.subcommand_cli_from_dict(
                {"edit": edit, "translate": translate, "train": train, "convert": convert},
                prog="python -m editar",
                args=words,
            )
    except (ValueError, OSError, FloatingPointError) as error:  # refused checkpoints, images, settings; failed writes
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
