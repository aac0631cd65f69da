"""Scores of several images, taken apart: a column's values, and the reasons for those that are missing."""

from collections.abc import Sequence

from metrics.scores import Scores


def values(scores: Sequence[Scores], column: str) -> list[float | None]:
    return [None if isinstance(each[column], str) else float(each[column]) for each in scores]


def reasons(scores: Sequence[Scores]) -> list[dict[str, str]]:
    return [{name: score for name, score in each.items() if isinstance(score, str)} for each in scores]
