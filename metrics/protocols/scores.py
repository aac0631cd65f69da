"""What a metric gives for a batch of images: values per image, and why some are missing."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """columns: name to one value per image in raw units, None where undefined. undefined: per image, the reason for
    each column that is None."""

    columns: dict[str, list[float | None]]
    undefined: list[dict[str, str]]
