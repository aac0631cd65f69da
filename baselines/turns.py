"""Networks that take turns on a GPU that has no room for all of them, as those of a method do whose phases follow one
another."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from editar.memory import free_bytes

ROOM = 1.25  # times the weights: with what is computed from them


class Turns:
    """size: bytes that all weights take. waiting: where the networks of a phase are while another runs: main memory,
    where the GPU had no room for all of them when this was made."""

    def __init__(self, device: str, size: int) -> None:
        free = None if torch.device(device).type == "cpu" else free_bytes(torch.device(device))
        self.device = device
        self.waiting = device if free is None or free >= ROOM * size else "cpu"

    @contextmanager
    def running(self, *networks: nn.Module) -> Iterator[None]:
        """With the networks on the device."""
        try:
            _move(networks, self.device)
            yield
        finally:
            self.rest(*networks)

    def rest(self, *networks: nn.Module) -> None:
        """Has the networks wait."""
        _move(networks, self.waiting)


def _move(networks: tuple[nn.Module, ...], place: str) -> None:
    for network in networks:
        nn.Module.to(network, place)  # the libraries' own `to` warn of half precision on a CPU
