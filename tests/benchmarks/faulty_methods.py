"""Methods that are faulty, or in whose company something else is."""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.method import EditRequest
from tests.benchmarks.killable import Noise


class FailsOn(Noise):
    """Raises an error where the sample `bad` is asked for."""

    def __init__(self, calls: Path, bad: str) -> None:
        super().__init__(calls)
        self.bad = bad

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        images = super().edit(requests)
        if any(request.sample_id == self.bad for request in requests):
            raise ArithmeticError("bad luck")
        return images


class Waiting(Noise):
    """Answers once there is a file `gate`."""

    def __init__(self, calls: Path) -> None:
        super().__init__(calls)
        self.gate = calls.with_name("gate")

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        images = super().edit(requests)
        while not self.gate.exists():
            time.sleep(0.01)
        return images


class FillsDisk(Noise):
    """From its first image on there is no room for the file `name` of the run: the kernel refuses it with ENOSPC."""

    def __init__(self, calls: Path, name: str) -> None:
        super().__init__(calls)
        self.file = calls.with_name("noise") / name

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        no_space_for(self.file)
        return super().edit(requests)


def no_space_for(path: Path) -> None:
    """In this process `path` is written to the device that is always full."""
    opened = io.open

    def full(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if file == path and mode != "r":
            path.touch()
            return opened("/dev/full", "wb")
        return opened(file, mode, *arguments, **options)

    io.open = full


class Greedy(Noise):
    """Takes `megabytes` of memory for each image, for the sample `glutton` a hundred times as much."""

    def __init__(self, calls: Path, megabytes: int, library: str, glutton: str = "") -> None:
        super().__init__(calls)
        self.bytes, self.glutton = megabytes * 2**20, glutton
        self.take = {"numpy": self._numpy, "torch": self._torch}[library]

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        images = super().edit(requests)
        self.take(sum(self.bytes * (100 if request.sample_id == self.glutton else 1) for request in requests))
        return images

    @staticmethod
    def _numpy(size: int) -> None:
        np.empty(size, np.uint8)

    @staticmethod
    def _torch(size: int) -> None:
        torch.empty(size, dtype=torch.uint8)
