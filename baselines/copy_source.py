"""The source image as the edit: the floor for editing, the ceiling for preservation."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from baselines.method import EditRequest, MethodCard, MethodContext, Requirements


class CopySource:
    card = MethodCard(kind="reference", note="nothing edited, the floor for editing and the ceiling for preservation")

    def __init__(self, context: MethodContext) -> None:
        pass

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        return [request.image.copy() for request in requests]

    def settings(self) -> dict[str, Any]:
        return {}

    def requirements(self) -> Requirements:
        return Requirements(note="no network")
