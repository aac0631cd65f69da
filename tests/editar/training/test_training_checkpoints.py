"""Checkpoints that are whole at any moment, and gradients that several processes add up once a batch."""

import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor.debug import CommDebugMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from editar.io.atomic import WriteError
from editar.io.tensors import CheckpointError
from editar.training.checkpoints import FileStore, Run, SharedStore, Store
from editar.training.distributed import Group, add_up_gradients, share_out
from tests.flips import COUNTS, campaign
from tests.limits import files_up_to

ALONE = Group(device=torch.device("cpu"))


class Counter:
    """A stream of numbers that knows where it stands."""

    def __init__(self) -> None:
        self.place = 0

    def __call__(self, index: int) -> int:
        self.place = index
        return index

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def fresh() -> Run:
    module = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
    return Run(module, torch.optim.AdamW(module.parameters()), Counter(), ema=0.9)


def numbers(run: Run) -> set[float]:
    """All that a run keeps; `save_for_ever` makes it one number."""
    assert isinstance(run.stream, Counter)
    moments = [state["exp_avg"] for state in run.adam.state.values()]
    tensors = [*run.module.parameters(), *run.average.values(), *moments]
    return {run.step, run.stream.place, *(value.item() for tensor in tensors for value in tensor.unique())}


def save_for_ever(folder: Path) -> None:
    torch.set_num_threads(1)
    run, store = fresh(), SharedStore(folder, ALONE)
    store.save(run)
    store.load(run)  # now the optimiser has its moments
    assert isinstance(run.stream, Counter)
    while True:
        run.step += 1
        run.stream(run.step)
        with torch.no_grad():
            for tensor in [*run.module.parameters(), *run.average.values()]:
                tensor.fill_(run.step)
            for state in run.adam.state.values():
                state["exp_avg"].fill_(run.step)
        store.save(run)


@pytest.mark.parametrize("moment", [0.0, 0.011, 0.023, 0.04, 0.07])
def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path, moment):
    process = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(tmp_path,))
    process.start()
    while not (tmp_path / "step-00000002").is_dir():
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(moment)
    process.kill()
    process.join()
    run, store = fresh(), SharedStore(tmp_path, ALONE)
    store.load(run)
    assert numbers(run) == {run.step} and run.step >= 2
    run.step += 1
    store.save(run)  # what the kill left is no hindrance
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{run.step:08d}"]


def test_copies_that_somebody_keeps_are_neither_removed_nor_resumed(tmp_path):
    run, store = fresh(), SharedStore(tmp_path, ALONE)
    kept = ["step-00000004-keep", "step-00000009.old", "step-9", "steps", "step-00000003-copy"]
    for run.step in (1, 2):
        store.save(run)
        for name in kept:
            shutil.copytree(tmp_path / f"step-{run.step:08d}", tmp_path / name, dirs_exist_ok=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "step-00000002"])
    shutil.copytree(tmp_path / "step-00000002", tmp_path / "step-00000001")
    again = fresh()
    SharedStore(tmp_path, ALONE).load(again)
    assert again.step == 2
    shutil.rmtree(tmp_path / "step-00000002")
    shutil.rmtree(tmp_path / "step-00000001")
    assert not SharedStore(tmp_path, ALONE).exists()


def test_a_full_disk_leaves_the_last_checkpoint_and_is_named(tmp_path):
    run = fresh()
    stores: tuple[Store, ...] = (SharedStore(tmp_path / "shared", ALONE), FileStore(tmp_path / "one"))
    (tmp_path / "one").mkdir()
    plain = Run(run.module, run.adam, lambda index: index, ema=0.0)
    for size in (10, 1000, 50_000):
        for store, each in zip(stores, (run, plain), strict=True):
            store.save(each)
            each.step += 1
            with files_up_to(size), pytest.raises(WriteError, match=str(tmp_path)):
                store.save(each)
            before = each.step - 1
            store.load(each)
            assert each.step == before
            each.step += 1


def test_gradients_are_added_up_once_a_batch():
    """Counted in one process that believes in a second one."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        group = Group(device=torch.device("cpu"), size=2)
        module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        share_out(module, module, group, shards=0)
        counts = []
        for last in (False, False, True):
            add_up_gradients(module, group, last)
            loss = module(torch.ones(1, 4)).sum()
            with CommDebugMode() as traffic:
                loss.backward()
            counts.append(sum(n for name, n in traffic.get_comm_counts().items() if "reduce" in str(name)))
        assert counts[:2] == [0, 0] and counts[2] > 0
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["process-0.pt", ".metadata", "__0_0.distcp", "SHA256SUMS"])
def test_checkpoints_that_lost_a_bit_are_refused(tmp_path: Path, name: str, count: int) -> None:
    torch.manual_seed(0)
    run, store = fresh(), SharedStore(tmp_path, ALONE)
    run.step = 3
    store.save(run)

    def load() -> str:
        again = fresh()
        store.load(again)
        return repr((again.step, sorted(numbers(again))))

    outcomes = campaign(tmp_path / "step-00000003" / name, load, count, CheckpointError)
    assert outcomes["silent"] == 0
    assert outcomes["unseen"] == 0 or name == "SHA256SUMS"  # whose last line may lose its end


@pytest.mark.parametrize("count", COUNTS)
def test_a_single_file_that_lost_a_bit_is_refused(tmp_path: Path, count: int) -> None:
    module = nn.Linear(8, 8)
    run, store = Run(module, torch.optim.AdamW(module.parameters()), int, ema=0.0), FileStore(tmp_path)
    store.save(run)

    def load() -> bool:
        store.load(run)
        return True

    assert campaign(tmp_path / "last.pt", load, count, CheckpointError) == {"silent": 0, "refused": count}
