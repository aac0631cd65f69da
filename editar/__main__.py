"""Command line: `python -m editar edit | translate | train | convert`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional

from editar.config import DRAFTS, DraftConfig, Guess

if TYPE_CHECKING:
    from editar.config import SamplingConfig
    from editar.pipeline import EditAR

OVERVIEW = """\
EditAR: edit images and generate from condition maps. Add --help to any of these commands for its flags.

  edit an image           python -m editar edit photo.jpg "make it snow" --out out.png
  edit a folder           python -m editar edit photos/ "make it snow" --out snowy/
  translate a map         python -m editar translate map.png "a red square" --task depth
  train or fine-tune      python -m editar train configs/editar_xl.toml
  convert the weights     python -m editar convert weights weights/editar --dtype bfloat16

Without --weights the miniature edits, which knows only its own small world."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model, how many images to make with it, and how their tokens are drawn."""

    weights: Path | None = None
    """Folder of a model: the authors' files, or the output of `convert`. The miniature if not given."""
    text: str | None = None
    """Folder or hub id of the T5 text encoder, if it is not in the model's folder."""
    guidance: float | None = None
    """Strength of the text (paper, eq. 5). This and the next three default to the model's own settings."""
    temperature: float | None = None
    """Below 1 favours likely tokens even more. 0 always takes the most likely one."""
    top_k: int | None = None
    """Draw from the k most likely tokens; 0 from all."""
    top_p: float | None = None
    """Draw from the most likely tokens that together have this probability; 1 from all."""
    seed: int = 0
    """Another seed draws another image."""
    samples: int = 1
    """Images to draw of each, with consecutive seeds from `seed` on; several also go on a contact sheet."""
    batch_size: int | None = None
    """Images to decode together; all of them, up to 8, if not given. Results may depend on it in the last bits."""
    window: int = DRAFTS.window
    """Tokens that a pass of the transformer takes: guessed, then verified. No image depends on it. 1: one by one."""
    guess: Guess = DRAFTS.guess
    """What is guessed: the token of the image at the same place, the one a row up, or nothing."""
    device: str | None = None
    """For instance cpu or cuda; the GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of transformer and T5; the published runs use bfloat16, which takes half the memory."""
    int8: Annotated[bool, FlagCreatePairsOff] = False
    """The transformer's matrices rounded to 8-bit integers, on an x86 CPU: faster than bfloat16 and half its memory.
    Other images come out: `python -m benchmarks.speed decode` reports by how much the logits change."""

    @property
    def seeds(self) -> range:
        from editar.config import SEEDS, require_seed

        if self.samples < 1:
            raise ValueError(f"--samples is {self.samples}; it must be at least 1")
        require_seed(self.seed, "--seed", SEEDS - self.samples + 1)
        return range(self.seed, self.seed + self.samples)

    def load(self, images: int) -> "EditAR":
        import torch

        from editar.pipeline import EditAR

        return EditAR.from_pretrained(
            self.weights,
            text_source=self.text,
            device=self.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=self.dtype,
            width=min(images, 8) if self.batch_size is None else self.batch_size,
            int8=self.int8,
            drafts=DraftConfig(window=self.window, guess=self.guess),
        )

    def sampling(self, own: "SamplingConfig") -> "SamplingConfig":
        given = {name: getattr(self, name) for name in ("guidance", "temperature", "top_k", "top_p")}
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    def describe(self, model: "EditAR") -> dict[str, Any]:
        """The model as a sidecar tells of it."""
        import torch

        from editar.decoding.cpu.step import can_fuse
        from editar.model.checkpoint import read_model
        from editar.pipeline import miniature_weights

        files = read_model(self.weights or miniature_weights(), self.text)
        return {
            "weights": str(self.weights) if self.weights else "miniature",
            "files": files.digests(),
            "taken": files.taken(),
            "dtype": self.dtype,
            "int8": self.int8,
            "device": str(model.device),
            "fused_steps": can_fuse(model.transformer),  # where there is no C++ compiler sums round differently
            "gpu": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else None,
            "images_at_a_time": model.width,
            "drafts": asdict(model.drafts),
        }

    def words(self, model: "EditAR") -> list[str]:
        """The flags that load this model again."""
        flags: dict[str, object] = {
            "--weights": self.weights,
            "--text": self.text,
            "--dtype": self.dtype,
            "--device": model.device,
            "--batch-size": model.width,
            "--window": model.drafts.window,
            "--guess": model.drafts.guess,
        }
        given = [str(word) for pair in flags.items() if pair[1] is not None for word in pair]
        return [*given, "--int8"] if self.int8 else given


@dataclass(frozen=True, kw_only=True)
class ImageFlags:
    """How images come in and go out."""

    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How an image is made square: crop keeps its centre, pad all of it on white, stretch all of it out of shape."""
    paste_back: Annotated[bool, FlagCreatePairsOff] = False
    """Put each result into a copy of its image, at the image's size."""
    recursive: Annotated[bool, FlagCreatePairsOff] = False
    """Of a folder, take the images in subfolders too."""
    overwrite: Annotated[bool, FlagCreatePairsOff] = False
    """Write over any file in the way. Without it only over results of an earlier start."""

    def words(self) -> list[str]:
        """The flags that repeat one image."""
        return ["--fit", self.fit] * (self.fit != "crop") + ["--paste-back"] * self.paste_back


Flags = Annotated[ModelFlags, OmitArgPrefixes]
DEFAULTS = ModelFlags()
Images = Annotated[ImageFlags, OmitArgPrefixes]
AS_THEY_ARE = ImageFlags()


def edit(
    image: Positional[Path],
    instruction: Positional[str],
    /,
    *,
    out: Path | None = None,
    images: Images = AS_THEY_ARE,
    model: Flags = DEFAULTS,
) -> None:
    """Example: python -m editar edit photo.jpg "make it snow" --out out.png

    Edit an image, or all images of a folder, as an instruction says.

    Args:
        image: The image to edit, or a folder.
        instruction: What to change, for instance "make it snow".
        out: Where to write the result: a file, edited.png if not given, or for a folder a folder, edited. A file
            RESULT.edit.json beside each tells how to make it again.
    """
    request = {"kind": "edit", "instruction": instruction, "prompt": instruction}
    _run(image, out or Path("edited" if image.is_dir() else "edited.png"), images, model, request, [instruction])


def translate(
    condition: Positional[Path],
    caption: Positional[str],
    /,
    *,
    task: Literal["depth", "canny", "segmentation"],
    out: Path | None = None,
    template: Literal["released", "paper"] = "released",
    images: Images = AS_THEY_ARE,
    model: Flags = DEFAULTS,
) -> None:
    """Example: python -m editar translate map.png "a red square" --task depth

    Make an image from a depth, canny or segmentation map and a caption; or one from each map of a folder.

    Args:
        condition: The map, as an image, or a folder of maps.
        caption: What the image shows.
        task: What kind of map it is.
        out: Where to write the result: a file, translated.png if not given, or for a folder a folder, translated. A
            file RESULT.edit.json beside each tells how to make it again.
        template: Wording of the prompt: the released checkpoint's or the paper's.
    """
    from editar.prompts import translation_prompt

    request = {"kind": "translate", "task": task, "template": template, "caption": caption}
    request["prompt"] = translation_prompt(task, caption, template)
    out = out or Path("translated" if condition.is_dir() else "translated.png")
    _run(condition, out, images, model, request, [caption, "--task", task, "--template", template])


def _run(
    image: Path,
    out: Path,
    images: ImageFlags,
    flags: ModelFlags,
    request: Mapping[str, Any],
    words: Sequence[str],
) -> None:
    """request: as in the sidecar. words: what follows the image on the command line."""
    from editar.jobs import make, plan, tell_of_sizes

    if not words[0].strip():
        raise ValueError("the text is empty; say what to change, or what the image shows")
    pictures = plan(image, out, flags.seeds, recursive=images.recursive, overwrite=images.overwrite)
    model = flags.load(len(pictures) * flags.samples)
    sampling = flags.sampling(model.sampling)
    tell_of_sizes(pictures, model.side, images.fit, images.paste_back)
    cut = model.text.cut_off(request["prompt"])
    if cut:
        print(
            f"note: the text is too long for the encoder's {model.text.length} positions; cut off: {cut!r}",
            file=sys.stderr,
        )
    files = [*images.words(), *flags.words(model)]
    make(
        pictures,
        model,
        request["prompt"],
        sampling,
        fit=images.fit,
        pasted=images.paste_back,
        request={**request, "fit": images.fit, "paste_back": images.paste_back, "cut_off": cut},
        about_model=lambda: flags.describe(model),
        command=lambda source: ["python", "-m", "editar", request["kind"], str(source), *words, *files],
    )


def convert(
    folder: Positional[Path],
    out: Positional[Path],
    /,
    *,
    text: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Example: python -m editar convert weights weights/editar --dtype bfloat16

    Turn the authors' files (editar_release.pt, vq_ds16_t2i.pt, a T5) into one folder of safetensors.

    Args:
        folder: Where the authors' files are.
        out: The folder to write. It holds all that a model needs, the T5's encoder included.
        text: Folder or hub id of the T5 text encoder; flan-t5-xl/ in the folder, or the hub's google/flan-t5-xl, if
            not given.
        dtype: How transformer and T5 are stored. bfloat16 halves the folder, and changes nothing for runs in bfloat16.
    """
    from editar.model.checkpoint import read_model, save_folder
    from editar.pipeline import DTYPES

    model = read_model(folder, text)
    for name, taken in model.taken().items():
        print(f"note: of {name} the weights under {taken} are taken", file=sys.stderr)
    save_folder(out, model, dtype=DTYPES[dtype])
    print(out)


def train(config: Positional[Path], /) -> None:
    """Example: python -m editar train configs/editar_xl.toml

    Train or fine-tune a model; `train CONFIG --help` lists the flags that change single settings of the file.

    Args:
        config: The settings, a TOML file like those in configs/.
    """
    _train(config, ())


def _train(config: Path, flags: Sequence[str]) -> None:
    try:
        from editar.training.settings import parse
        from editar.training.train import run
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs {error.name}: install the extra `train`, editar-bench[train]") from error
    settings = parse(config, flags)
    run(settings)
    print(settings.out / "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 after an error that the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(OVERVIEW)
        return 0
    from editar.devices import is_lack_of_memory

    try:
        if words[:1] == ["train"] and len(words) > 1 and not words[1].startswith("-"):
            _train(Path(words[1]), words[2:])  # its flags are only known once the file is read
        else:
            tyro.extras.subcommand_cli_from_dict(
                {"edit": edit, "translate": translate, "train": train, "convert": convert},
                prog="python -m editar",
                description='Example: python -m editar edit photo.jpg "make it snow" --out out.png',
                args=words,
            )
    except (ValueError, OSError, ImportError, FloatingPointError) as error:  # refused files, texts, settings; writes
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        print("error: memory ran out; make room, or take a smaller batch or --dtype bfloat16", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the results that are named above are whole", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
