"""Where networks wait; the meta device stands for one that is not the CPU, with as much free memory as this machine."""

import torch
from torch import nn

from baselines.turns import Turns


def test_networks_stay_where_there_is_room() -> None:
    turns, network = Turns("meta", 1), nn.Linear(1, 1)
    assert turns.waiting == "meta"
    with turns.running(network):
        assert network.weight.device == torch.device("meta")
    assert network.weight.device == torch.device("meta")


def test_networks_wait_in_main_memory_where_there_is_none() -> None:
    turns, network = Turns("meta", 10**18), nn.Linear(1, 1)
    turns.rest(network)
    assert turns.waiting == "cpu" and network.weight.device == torch.device("cpu")
    assert Turns("cpu", 10**18).waiting == "cpu"
