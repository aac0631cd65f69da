"""What a method is to the benchmarks: requests go in, images come out.

A new method is one file with a class that has `edit` and `settings`, and one line in `baselines.METHODS`; one that has
`translate` has its line in `TRANSLATORS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from PIL import Image

from editar.io.assets import AssetFile


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """What tables say of a method besides its numbers.

    kind: a reference bounds the other rows and competes with none; a feed-forward method follows an instruction, an
    inversion method two prompts, a control method a condition map. published_as: the paper's name of the published row
    that this one reproduces, "" without one. note: what a reference bounds. citation: where the method was published.
    licence: of its weights.
    """

    kind: Literal["reference", "feed-forward", "inversion", "control", ""] = ""
    published_as: str = ""
    note: str = ""
    citation: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One image to edit. Neither the edit mask nor a target is ever given to a method.

    image: RGB, square, of the suite's side. instruction is for feed-forward methods, the two prompts (and the words
    to blend, source and target, where the data set names them) for inversion methods. seed: 63 bits, the sample's own;
    all randomness of the sample has to come from it.
    """

    sample_id: str
    image: Image.Image
    instruction: str
    source_prompt: str
    target_prompt: str
    blend_words: tuple[str, str] | None
    seed: int


@dataclass(frozen=True, kw_only=True)
class TranslateRequest:
    """One condition map to turn into an image. The real image that it was made from is never given to a method.

    condition: RGB, square, of the suite's side: nearness, edges (0 or 255) or the colours of a segmentation. caption:
    what the image is to show. task: "depth", "canny" or "segmentation". seed: as for EditRequest.
    """

    sample_id: str
    condition: Image.Image
    caption: str
    task: str
    seed: int


Request = EditRequest | TranslateRequest
Item = TypeVar("Item")  # of a batch


def input_image(request: Request) -> Image.Image:
    """The image to edit, or the condition map. The answer has its size."""
    return request.image if isinstance(request, EditRequest) else request.condition


@dataclass(frozen=True, kw_only=True)
class MethodContext:
    """What a method may know of the benchmark that builds it.

    suite: "miniature" or "paper". weights: the folder that the user gave, None for the suite's own.
    device: a torch device string. image_side: pixels along one side of the square images. task: that of all requests
    to translate, None where the benchmark edits. cache: a folder for what methods can compute again, by its
    fingerprint; None: nothing is kept. samples: how many requests the whole data set makes, whichever of them this run
    or this process is asked for; None where nobody counted them. images_at_once: see `in_blocks`.
    """

    suite: str
    weights: Path | None
    device: str
    image_side: int
    task: str | None = None
    cache: Path | None = None
    samples: int | None = None
    images_at_once: int = 1


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a method takes to run; one without weights has no files.

    passes: how many times a network is run for one image, counted as passes of a single image, by network: guidance
    runs it twice. phases: of a method whose networks need not all be in memory at a time, the bytes that the weights of
    those take that do, by what is done with them, in order. unset: environment variables that a run needs and that are
    not set. note: what files and passes leave out.
    """

    files: tuple[AssetFile, ...] = ()
    passes: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    note: str = ""

    @property
    def absent(self) -> tuple[AssetFile, ...]:
        """What a run could not start without and can't get by itself."""
        return tuple(file for file in self.files if file.path is None and file.comes == "given")


class Unsupported(ValueError):
    """Raised by the constructor of a method that has no networks for the context's suite and task."""


def refuse_miniature(method: str, context: MethodContext) -> None:
    """Raises Unsupported where only the official weights would do."""
    if context.suite == "miniature":
        raise Unsupported(f"{method} has no networks for the suite 'miniature': leave it out of --methods")


class NoAnswer(Exception):
    """Stands in the place of an image that a method could not make; its text is recorded with the sample."""


@dataclass(frozen=True, kw_only=True)
class NotedImage:
    """An image with what its method has to say of it, texts by label ("expressive instruction"): they are kept with the
    sample, and the gallery shows them."""

    image: Image.Image
    notes: Mapping[str, str]


Answer = Image.Image | NotedImage | NoAnswer
Making = Callable[[Any, Sequence[Item]], list[Image.Image | NoAnswer]]


def in_blocks(make: Making[Item]) -> Making[Item]:
    """For an `edit` or `translate` (or what they call with more than a request for each image) whose networks round
    differently in batches of different sizes: it gets as many requests at a time as its object's `images_at_once` says,
    the last one again and again where there are fewer. So an image depends neither on the number of requests nor on the
    others; the number has to stand in `settings`."""

    @wraps(make)
    def made(self: Any, requests: Sequence[Item]) -> list[Image.Image | NoAnswer]:
        size: int = self.images_at_once
        answers: list[Image.Image | NoAnswer] = []
        for start in range(0, len(requests), size):
            block = list(requests[start : start + size])
            answers += make(self, block + block[-1:] * (size - len(block)))[: len(block)]
        return answers

    return made


class Method(Protocol):
    """Edits images.

    Its constructor has to be cheap, since of a finished run only the settings are asked for: what takes time belongs
    into a method `load()`, which a benchmark calls before the first `edit` where there is one. An error in there ends
    the run; one in `edit` fails samples. `settings` holds all that can move a number (steps, guidance, digests of the
    weights), as JSON.

    `card` says what tables have to know of the method.

    A method with weights also has `requirements() -> Requirements`: which files, where they are, how often its networks
    run. It loads and fetches nothing and finds nothing wrong with what is missing: --dry-run shows it, and --methods
    all leaves out a row whose files cannot be found or fetched.
    """

    @property
    def card(self) -> MethodCard: ...

    def edit(self, requests: Sequence[EditRequest]) -> Sequence[Answer]:
        """One RGB image for each request, in order and of its image's size, or a NoAnswer that says why not.

        An exception fails the whole batch, which is then tried again one request at a time, or by halves where
        memory ran out.
        """
        ...

    def settings(self) -> dict[str, Any]: ...


class Translator(Protocol):
    """Turns condition maps into images; otherwise as Method. A class may be both."""

    @property
    def card(self) -> MethodCard: ...

    def translate(self, requests: Sequence[TranslateRequest]) -> Sequence[Answer]:
        """One RGB image for each request, in order and of its condition's size, or a NoAnswer that says why not.

        All requests are of one task. An exception fails the whole batch, as in `Method.edit`.
        """
        ...

    def settings(self) -> dict[str, Any]: ...
