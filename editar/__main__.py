"""Command line: `python -m editar edit | translate | convert`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import Positional

Dtype = Literal["float32", "bfloat16"]


def edit(
    image: Positional[Path],
    instruction: Positional[str],
    /,
    *,
    out: Path = Path("edited.png"),
    weights: Path | None = None,
    guidance: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Edit an image as an instruction says.

    Args:
        image: The image to edit.
        instruction: What to change, for instance "make it snow".
        out: Where to write the result.
        weights: A model's folder; the miniature if not given.
        guidance: Strength of the instruction (paper, eq. 5); the model's own if not given.
        seed: Another seed draws another edit.
        device: For instance cpu or cuda.
        dtype: Arithmetic of the transformer; the published runs use bfloat16.
    """
    from editar.images import open_image
    from editar.pipeline import EditAR

    source = open_image(image)
    model = EditAR.from_pretrained(weights, device=device, dtype=dtype)
    _save(model.edit([source], [instruction], guidance=guidance, seeds=[seed])[0], out)


def translate(
    condition: Positional[Path],
    caption: Positional[str],
    /,
    *,
    task: Literal["depth", "canny", "segmentation"],
    out: Path = Path("translated.png"),
    template: Literal["released", "paper"] = "released",
    weights: Path | None = None,
    guidance: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Make an image from a depth, canny or segmentation map and a caption.

    Args:
        condition: The map, as an image.
        caption: What the image shows.
        task: What kind of map it is.
        out: Where to write the result.
        template: Wording of the prompt: the released checkpoint's or the paper's.
        weights: A model's folder; the miniature if not given.
        guidance: Strength of the caption (paper, eq. 5); the model's own if not given.
        seed: Another seed draws another image.
        device: For instance cpu or cuda.
        dtype: Arithmetic of the transformer; the published runs use bfloat16.
    """
    from editar.images import open_image
    from editar.pipeline import EditAR

    source = open_image(condition)
    model = EditAR.from_pretrained(weights, device=device, dtype=dtype)
    made = model.translate([source], [caption], task=task, template=template, guidance=guidance, seeds=[seed])
    _save(made[0], out)


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


def _save(image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 after an error that the user can mend."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"edit": edit, "translate": translate, "convert": convert}, prog="python -m editar", args=argv
        )
    except (ValueError, FileNotFoundError) as error:  # checkpoint, image and settings errors
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
