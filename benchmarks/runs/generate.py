"""The methods of a run; from requests to images or the reason why there is none, whatever a method does."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from baselines.method import (
    EditRequest,
    Method,
    MethodContext,
    NoAnswer,
    NotedImage,
    Request,
    Requirements,
    Translator,
    Unsupported,
    input_image,
)
from benchmarks.runs import memory
from editar.devices import is_lack_of_memory

MAX_TEXT = 4000  # characters of an error, or of a note, that are kept with the sample

AnyMethod = Method | Translator


@dataclass(frozen=True, kw_only=True)
class ChosenMethod:
    """A method that the flags chose. build: makes it for a context. by_name: the user named it, instead of asking for
    all or for the quick ones; then it is an error if it lacks something."""

    name: str
    build: Callable[[MethodContext], AnyMethod]
    by_name: bool = True

    def lacks(self, context: MethodContext) -> str | None:
        """Why a run could not use this method: it has no networks for the suite, or their files are missing."""
        try:
            requirements = requirements_of(self.build(context))
        except Unsupported as reason:
            return str(reason)
        reasons = [f"the environment variable {name} is not set" for name in requirements.unset]
        if absent := requirements.absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            reasons.append(f"{absent[0].name}{more} can't be found or fetched (--weights); --dry-run shows all")
        return "; ".join(reasons) or None


def requirements_of(method: AnyMethod) -> Requirements:
    """What the method says that it needs; nothing for one that says nothing."""
    requirements: Callable[[], Requirements] | None = getattr(method, "requirements", None)
    return requirements() if requirements else Requirements(note="it doesn't say what it needs")


class GuardedMethod:
    """A method whose failures become answers; after it ran out of memory it gets half as many requests at a time."""

    def __init__(self, method: AnyMethod) -> None:
        self.method = method
        self.most = sys.maxsize  # requests at a time

    def generate(self, requests: Sequence[Request]) -> list[Image.Image | NotedImage | str]:
        """An image for each request, or the text of the error. When a batch fails, its requests are tried one by one,
        for want of memory by halves.

        requests: all to edit, or all to translate.
        """
        size, middle = 1, (len(requests) + 1) // 2
        if len(requests) > self.most:
            size = middle
        else:
            try:
                return self._generate(requests)
            except (Exception, SystemExit) as error:  # some code ends the process where it should raise
                problem, no_memory = describe(error), is_lack_of_memory(error)
            # The error is gone here, and with it what its frames held.
            if no_memory:
                memory.release()
            if len(requests) == 1:
                return [problem]
            if no_memory:
                size = self.most = middle
                print(f"out of memory with {len(requests)} images at a time, going on with {middle}", file=sys.stderr)
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [answer for part in parts for answer in self.generate(part)]

    def _generate(self, requests: Sequence[Request]) -> list[Image.Image | NotedImage | str]:
        make: Any = getattr(self.method, "edit" if isinstance(requests[0], EditRequest) else "translate")
        answers = make(requests)
        if not isinstance(answers, Sequence):
            raise TypeError(f"the method returned {type(answers).__name__} instead of a list of images")
        if len(answers) != len(requests):
            raise RuntimeError(f"the method returned {len(answers)} images for {len(requests)} requests")
        return [_checked(answer, request) for answer, request in zip(answers, requests, strict=True)]


def _checked(answer: object, request: Request) -> Image.Image | NotedImage | str:
    if isinstance(answer, NoAnswer):
        return str(answer)[:MAX_TEXT]
    if isinstance(answer, NotedImage):
        image = _checked(answer.image, request)
        notes = {str(label): str(text)[:MAX_TEXT] for label, text in answer.notes.items()}
        return replace(answer, image=image, notes=notes) if isinstance(image, Image.Image) else image
    if not isinstance(answer, Image.Image):
        return f"the method returned {type(answer).__name__} instead of an image"
    try:
        answer.load()  # an image that was opened from a file may not have been read yet
    except Exception as error:
        return f"the method returned an image that can't be read: {describe(error)}"
    if answer.size != input_image(request).size or answer.mode != "RGB":
        got, wanted = (
            f"{image.mode} of {image.width}x{image.height} pixels" for image in (answer, input_image(request))
        )
        return f"the method returned an image that is {got}, instead of {wanted}"
    return answer


def describe(error: BaseException) -> str:
    """The error with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"[:MAX_TEXT]
