"""The processes of a training: one alone, or those that torchrun started, with the network's weights shared out."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process among the others. All of them must call a method, or none."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what all have in common."""
        return self.rank == 0

    def all(self, value: T) -> list[T]:
        """What every process has, by rank."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: Tensor) -> Tensor:
        """Whether it is so in any process: bool scalars on the device, for which nothing waits."""
        if self.size == 1:
            return flag
        flags = flag.float()
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return flags.bool()

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def join(device: str) -> Group:
    """The group that torchrun started this process in, else this process alone. device: "cpu", "cuda", "cuda:1" ..."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        return Group(device=torch.device(device))
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    return Group(rank=dist.get_rank(), size=dist.get_world_size(), device=place)


def leave(group: Group) -> None:
    """The other end of `join`."""
    if group.size > 1:
        dist.destroy_process_group()


def share_out(module: nn.Module, blocks: Iterable[nn.Module], group: Group, shards: int) -> None:
    """Spread the weights of `module` over `shards` processes, with as many copies as there are such (FSDP2, in place).

    blocks: parts of it that are gathered one at a time. shards: 1 keeps a copy in every process (data parallel); 0 is
    all processes. Raises ValueError if they don't come out even.
    """
    shards = shards or group.size
    if group.size % shards:
        raise ValueError(f"shards is {shards}, which doesn't divide the {group.size} processes")
    if group.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    shape = (group.size // shards, shards)
    mesh = init_device_mesh(group.device.type, shape, mesh_dim_names=("copies", "shards"))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def add_up_gradients(module: nn.Module, group: Group, now: bool) -> None:
    """Whether the next backward through a module that is shared out adds up the gradients of all processes, or leaves
    that to a later one.

    Between the parts of a batch it would only cost time. Until then each process holds its gradients of all weights.
    """
    if group.size > 1:
        from torch.distributed.fsdp import FSDPModule

        assert isinstance(module, FSDPModule)
        module.set_requires_gradient_sync(now)


def full(tensor: Tensor) -> Tensor:
    """A tensor as it is without sharing out; all processes get it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole(tensors: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Shared-out tensors, complete and on the CPU in the first process; the others get none."""
    complete = {}
    for name, tensor in tensors.items():
        gathered = full(tensor).detach()
        if group.first:
            complete[name] = gathered.cpu()
    return complete
