"""What the data sets show of samples: for sheets, figures and the gallery."""

import numpy as np

from benchmarks.datasets.piebench import PieBenchRecord
from benchmarks.datasets.translation import TranslationDataset, TranslationRecord
from benchmarks.datasets.translation_protocols import TranslationProtocol
from reports.sheets.pictures import Shown


def shown_edit(record: PieBenchRecord) -> Shown:
    """The mask is shown without the frame of a pixel that the official evaluation adds to every one."""
    words = {"blend words": " → ".join(record.blend_words)} if record.blend_words else {"blend words": "none"}
    return Shown(
        texts={
            "instruction": record.instruction,
            "source prompt": record.source_prompt,
            "target prompt": record.target_prompt,
            **words,
        },
        pictures={"source": record.image()},
        mask=np.pad(record.mask()[1:-1, 1:-1], 1, mode="edge"),
    )


def shown_translation(dataset: TranslationDataset, protocol: TranslationProtocol, record: TranslationRecord) -> Shown:
    row = dataset.row(record)
    return Shown(
        texts={"caption": record.caption},
        pictures={"condition": protocol.condition(row), "real image": protocol.image(row)},
    )
