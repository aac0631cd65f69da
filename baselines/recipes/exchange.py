"""The command's side of `baselines/external.py`, for scripts in the environments of old models.

One file that needs only Pillow; Python 3.8 or newer.
"""

import json
import sys
import traceback
from pathlib import Path

from PIL import Image


class NoImage(Exception):
    """Raised by `answer` where the model gives nothing; its text is recorded with the sample."""


def answer_all(folder, answer):
    """Calls `answer(request, image)` for each request in `folder` and stores what it returns.

    folder: that the command was given as "{folder}". request: a dict, as described in external.py. image: RGB.
    answer: returns a PIL image, which is saved as PNG. Whatever it raises is written down as the reason why this one
    has no answer, and the others go on.
    """
    folder = Path(folder)
    for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        stem = str(folder / "answers" / request["sample_id"])  # with_suffix would cut ids that have dots
        try:
            with Image.open(folder / request["image"]) as file:
                image = file.convert("RGB")
            answer(request, image).convert("RGB").save(stem + ".png")
        except NoImage as reason:
            _refuse(stem, str(reason) or "no image was returned")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            _refuse(stem, f"{type(error).__name__}: {error}")


def _refuse(stem, reason):
    Path(stem + ".txt").write_text(reason, encoding="utf-8")
