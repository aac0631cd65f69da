"""No code runs from data or weights: over the source, and by planting what would run wherever a checkpoint is read."""

import ast
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from editar.io.tensors import CheckpointError, check_archives, map_pickle, read_tensors
from editar.model.official import OFFICIAL_TRANSFORMER, OFFICIAL_VQ
from editar.training.tensor_reader import METADATA, TensorReader
from metrics.networks.inception import OfficialInception
from metrics.networks.official import Found

ROOT = Path(__file__).parents[2]
PACKAGES = ("editar", "metrics", "baselines", "benchmarks", "reports")

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load",
    "dill.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "shelve.open", "runpy.run_path",
    "shutil.unpack_archive", "tarfile.open", "torch.hub.load", "pd.read_pickle", "subprocess.getoutput", "load_dataset",
}  # fmt: skip
# What is harmless with the argument given as here, and only then.
DEMANDED: dict[str, dict[str, bool]] = {
    "torch.load": {"weights_only": True}, "np.load": {"allow_pickle": False}, "numpy.load": {"allow_pickle": False},
}  # fmt: skip
ASKING = ("AutoTokenizer", "AutoConfig", "AutoModel", "AutoProcessor")  # of transformers: they ask, at a terminal
TORCHSCRIPT = "metrics/networks/inception.py"  # checks the program first


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File, dotted name and node of every call in the packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def test_no_call_in_the_source_runs_what_it_reads() -> None:
    faults = []
    for file, name, node in calls():
        given = {each.arg: each.value.value for each in node.keywords if isinstance(each.value, ast.Constant)}
        wrong = name in FORBIDDEN or bool(given.get("shell")) or bool(given.get("trust_remote_code"))
        wrong |= any(given.get(key, "absent") is not value for key, value in DEMANDED.get(name, {}).items())
        wrong |= name.endswith(".from_pretrained") and name.startswith(ASKING) and "trust_remote_code" not in given
        wrong |= name == "torch.jit.load" and file != TORCHSCRIPT
        wrong |= name.endswith((".extractall", ".extract"))
        if wrong:
            faults.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
    assert not faults


class Planted:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.target),)


Plant = Callable[[Path], None]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """plant(path): a file that would make a folder; afterwards there must be none."""
    target = tmp_path / "owned"

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {"w": torch.zeros(1), "x": Planted(target)}}, path)

    yield write
    assert not target.exists()


def test_the_planted_file_would_run(plant: Plant, tmp_path: Path) -> None:
    plant(tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    (tmp_path / "owned").rmdir()


def _model(folder: Path) -> None:
    from editar.model.checkpoint import read_model

    read_model(folder)


def _t5(folder: Path) -> None:
    from editar.model.t5 import T5TextEncoder

    (folder / "config.json").write_text('{"d_model": 8, "model_type": "t5"}')
    T5TextEncoder(folder).nbytes  # noqa: B018


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig

    from metrics.networks.clip import OfficialClip

    CLIPConfig().save_pretrained(folder)
    OfficialClip(_found(folder / "pytorch_model.bin"))


def _found(path: Path) -> Found:
    return Found(path=path, digest="", official=False)


def _dino(folder: Path) -> None:
    from metrics.networks.dino import OfficialDino

    OfficialDino(_found(folder / "dino_vitbase8_pretrain.pth"))


def _lpips(folder: Path) -> None:
    from metrics.networks.lpips import OfficialLpips

    OfficialLpips(_found(folder / "squeezenet1_1-b8a52dc0.pth"))


def _segmentation(folder: Path) -> None:
    from metrics.networks.deeplab import OfficialDeepLabV3

    OfficialDeepLabV3(_found(folder / "deeplab.pth"))


def _depth(folder: Path) -> None:
    from transformers import DPTConfig

    from metrics.networks.dpt import OfficialDepth

    DPTConfig(hidden_size=8, num_hidden_layers=4, num_attention_heads=1, intermediate_size=8).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    OfficialDepth(_found(folder / "pytorch_model.bin"))


def _diffusers(folder: Path) -> None:
    from baselines.stable_diffusion.networks import StableDiffusion

    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "layers_per_block": 1}
    config = {
        **blocks,
        "block_out_channels": [4, 4],
        "norm_num_groups": 1,
        "cross_attention_dim": 4,
        "attention_head_dim": 2,
    }
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    StableDiffusion.from_folder(folder, "cpu", "float32")


def _training(folder: Path) -> None:
    from editar.training.checkpoints import FileStore, Run

    network = nn.Linear(1, 1)
    FileStore(folder).load(Run(network, torch.optim.Adam(network.parameters()), lambda step: step, 0.0))


ROADS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "the authors' model": (OFFICIAL_TRANSFORMER, _model),
    "T5": ("pytorch_model.bin", _t5),
    "CLIP": ("pytorch_model.bin", _clip),
    "DINO": ("dino_vitbase8_pretrain.pth", _dino),
    "LPIPS": ("squeezenet1_1-b8a52dc0.pth", _lpips),
    "DeepLabV3": ("deeplab.pth", _segmentation),
    "DPT": ("pytorch_model.bin", _depth),
    "diffusers": ("unet/diffusion_pytorch_model.bin", _diffusers),
    "training": ("last.pt", _training),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("road", ROADS)
def test_a_planted_pickle_is_refused_and_does_not_run(road: str, plant: Plant, tmp_path: Path) -> None:
    name, load = ROADS[road]
    folder = tmp_path / "weights"
    plant(folder / name)
    if name == OFFICIAL_TRANSFORMER:
        plant(folder / OFFICIAL_VQ)
    with pytest.raises(Exception, match=rf"{name}|weights") as caught:
        load(folder)
    assert isinstance(caught.value, (ValueError, OSError, pickle.UnpicklingError))


class Reached:
    """Pickled as getattr, which older Pythons call for an enumeration's members and nothing else may."""

    def __reduce__(self) -> tuple[Any, ...]:
        from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

        return getattr, (_MEM_FORMAT_ENCODING, "mro")


def test_a_shared_checkpoint_is_refused_where_it_holds_more_than_tensors(plant: Plant, tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    dcp.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "step")
    path = tmp_path / "step" / METADATA
    whole = pickle.loads(path.read_bytes())
    state = {"w": torch.zeros(2)}
    dcp.load(state, storage_reader=TensorReader(tmp_path / "step"))
    assert state["w"].tolist() == [1.0, 1.0]

    path.write_bytes(pickle.dumps(Planted(tmp_path / "owned")))
    with pytest.raises(CheckpointError, match="mkdir"):
        TensorReader(tmp_path / "step")
    path.write_bytes(pickle.dumps(Reached()))
    with pytest.raises(CheckpointError, match="mro"):
        TensorReader(tmp_path / "step")
    whole.state_dict_metadata["w"] = BytesStorageMetadata()  # would be unpickled unchecked
    path.write_bytes(pickle.dumps(whole))
    with pytest.raises(CheckpointError, match=r"w is no tensor|BytesStorageMetadata"):
        TensorReader(tmp_path / "step")


def test_a_shared_checkpoint_that_unfolds_to_more_than_it_has_is_refused(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save({"w": torch.zeros(2**20)}, checkpoint_id=tmp_path)
    metadata, plain, packed = tmp_path / METADATA, tmp_path / "plain.pt", tmp_path / "packed.pt"
    whole = pickle.loads(metadata.read_bytes())
    (index,) = whole.storage_data
    path = tmp_path / whole.storage_data[index].relative_path
    plain.write_bytes(path.read_bytes())
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members_of(plain).items():
            file.writestr(name, content)
    path.write_bytes(packed.read_bytes())
    whole.storage_data[index].length = path.stat().st_size
    metadata.write_bytes(pickle.dumps(whole))
    with pytest.raises(CheckpointError, match="w unfolds to"):
        TensorReader(tmp_path).check_sizes()
    path.unlink()
    with pytest.raises(CheckpointError, match="w can't be read"):
        TensorReader(tmp_path).check_sizes()


class Writes(nn.Module):
    """A network that writes a file when it runs, in TorchScript."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.layers = nn.Conv2d(3, 2, 1)
        self.target = target

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, self.target)
        return self.layers(images)


def test_torchscript_that_is_more_than_a_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(Writes(str(tmp_path / "owned"))).save(path)
    with pytest.raises(ValueError, match=r"torch\.save"):
        OfficialInception(_found(path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["DiffusionPipeline", "utils", "no_such_class", ["mine", "Scheduler"], None])
def test_a_scheduler_is_one_of_diffusers(name: Any, tmp_path: Path) -> None:
    from baselines.controlnet import scheduler_of

    folder = tmp_path / "scheduler"
    folder.mkdir()
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    with pytest.raises(ValueError, match="scheduler_config"):
        scheduler_of(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_about(tmp_path: Path) -> None:
    """transformers would ask at the terminal, and wait, where it is not told."""
    from editar.model.t5 import T5TextEncoder

    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    settings = {
        "d_model": 8,
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.C", "AutoTokenizer": ["mine.T", None]},
    }
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(settings))
    torch.save({"shared.weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    encoder = T5TextEncoder(tmp_path)
    with pytest.raises(ValueError, match="code"):
        encoder(["make it red"])
    assert not (tmp_path / "owned").exists()


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def two_in_one(shown: dict[str, bytes], loaded: dict[str, bytes]) -> bytes:
    """An archive with two directories: of two end records of 64 bits, Python's `zipfile` takes the one in its usual
    place, PyTorch's reader the one that the locator names."""
    content, directories = b"", []
    for members in (loaded, shown):
        entries = []
        for name, data in members.items():
            method = 8 if len(data) > 2**20 else 0  # deflated, or stored
            packed = zlib.compress(data)[2:-4] if method else data
            about = struct.pack("<3H3L2H", method, 0, 0, zlib.crc32(data), len(packed), len(data), len(name), 0)
            where = struct.pack("<3H2L", 0, 0, 0, 0, len(content))
            entries.append(b"PK\1\2" + struct.pack("<3H", 20, 20, 0) + about + where + name.encode())
            content += b"PK\3\4" + struct.pack("<2H", 20, 0) + about + name.encode() + packed
        directories.append(b"".join(entries))
    records = []
    for directory, members in zip(directories, (loaded, shown), strict=True):
        records.append(len(content) + len(directory))
        size = (len(members), len(members), len(directory), len(content))
        content += directory + b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, *size)
    content += b"PK\6\7" + struct.pack("<LQL", 0, records[0], 1)
    return content + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def test_the_program_that_is_loaded_is_the_one_that_is_checked(tmp_path: Path) -> None:
    path, shown, loaded = (tmp_path / name for name in ("inception-2015-12-05.pt", "shown.pt", "loaded.pt"))
    torch.jit.script(nn.Conv2d(3, 2, 1)).save(shown)
    torch.jit.script(Writes(str(tmp_path / "owned"))).save(loaded)
    renamed = {f"shown/{name.partition('/')[2]}": data for name, data in members_of(loaded).items()}
    path.write_bytes(two_in_one(members_of(shown), renamed))
    assert not any(b"torch.save" in data for data in members_of(path).values())
    torch.jit.load(path)(torch.zeros(1, 3, 4, 4))
    (tmp_path / "owned").unlink()  # it would run
    with pytest.raises(ValueError, match=r"torch\.save"):
        OfficialInception(_found(path))
    assert not (tmp_path / "owned").exists()


def test_an_archive_that_unfolds_in_the_loaders_eyes_only_is_refused(tmp_path: Path) -> None:
    path, shown = tmp_path / "a.pt", tmp_path / "shown.pt"
    torch.save({"w": torch.zeros(2)}, shown)
    large = members_of(shown) | {"shown/data/0": bytes(4 * 2**20)}
    path.write_bytes(two_in_one(members_of(shown), large))
    assert sum(map(len, members_of(path).values())) < path.stat().st_size < 2**16
    with pytest.raises(CheckpointError, match=r"a\.pt: refused, because it unfolds"):
        read_tensors(path)
    with pytest.raises(CheckpointError, match=r"a\.pt: refused, because it unfolds"):
        check_archives(tmp_path)


def test_a_checkpoint_that_says_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path, small = tmp_path / "large.pt", tmp_path / "small.pt"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path)  # a file of a kilobyte, four terabytes when copied
    with pytest.raises(CheckpointError):
        map_pickle(path)
    torch.save({"w": torch.zeros(1000, 1000)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member))
    assert small.stat().st_size < path.stat().st_size / 100
    with pytest.raises(CheckpointError):
        map_pickle(small)
    assert read_tensors(path)["w"].shape == (1000, 1000)
