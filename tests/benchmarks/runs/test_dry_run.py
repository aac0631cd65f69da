"""--dry-run: what it says, and that it asks no network and builds none."""

import re
import socket
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants
from torch.utils.flop_counter import FlopCounterMode

from baselines import METHODS
from baselines.assets import ASSETS
from benchmarks import piebench, translation
from benchmarks.piebench import Arguments, evaluate
from benchmarks.runs.dry_run import UNET_FLOPS, UNET_PARAMETERS
from editar.io.assets import Asset
from tests.benchmarks.test_piebench import TINY
from tests.benchmarks.tiny import write_piebench

CLIP = ("models--openai--clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")


@pytest.fixture(autouse=True)
def nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, a hub that could be asked, and no way to ask it or to build a network."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a dry run asked the network or built one")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch-hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)


def table(lines: list[str]) -> list[str]:
    return lines[next(place for place, line in enumerate(lines) if line.startswith("method weights passes")) :]


def plan(capsys: pytest.CaptureFixture[str], *arguments: str, benchmark=piebench) -> str:
    assert benchmark.main([*arguments, "--dry-run"]) == 0, capsys.readouterr().err
    return re.sub(r" +", " ", capsys.readouterr().out)


def test_of_the_paper_suite_without_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = plan(capsys, "--methods", "all", "--suite", "paper")
    lines = text.splitlines()
    for line in (
        " MISSING PIE-Bench_v1/mapping_file.json size unknown licence unknown, its authors, on request",
        " to fetch squeezenet1_1-b8a52dc0.pth 4.96 MB BSD-3-Clause",
        " to fetch clip-vit-large-patch14/model.safetensors 1.71 GB MIT (openai/CLIP), hub: openai/clip-vit-large",
        " MISSING editar_release.pt 9.39 GB",
        " to fetch stable-diffusion-v1-4/unet/diffusion_pytorch_model.safetensors 3.44 GB CreativeML OpenRAIL-M, hub: "
        "CompVis/stable-diffusion-v1-4 @ 133a221",
        " to fetch blip-image-captioning-base/pytorch_model.bin 990 MB BSD-3-Clause",
        "pnp-inversion 4.27 GB and 5 of unknown size UNet 250 >= ",
        "editar 20.8 GB and 7 of unknown size tokens decoded 2048 not measured not measured not measured",
        " to fetch instruct-pix2pix/instruct-pix2pix-00-22000.ckpt 7.7 GB MIT, hub: timbrooks/instruct-pix2pix",
        " MISSING v1-5-pruned-emaonly-adaption-task.ckpt size unknown MIT",
        "magicbrush 7.7 GB and 2 of unknown size UNet 300 >= ",
        " to fetch LLaVA-7B-v1/pytorch_model-00001-of-00002.bin 9.98 GB LLaMA, hub: tsujuifu/ml-mgie @ 7da3813",
        " weights in memory, by phase: describing 28.2 GB, diffusion 4.39 GB",
        " MISSING seed-x-17b-edit/llm/pytorch_model-00001-of-00006.bin size unknown SEED-X-17B's, with LLaMA 2's "
        "terms, hub: AILab-CVC/seed-x-17b-edit",
        " to fetch Qwen-VL-Chat/pytorch_model-00008-of-00010.bin size unknown Tongyi Qianwen, hub: Qwen/Qwen-VL-Chat",
        " left out: seed-x-17b-edit/agent/pytorch_model.bin and 11 more can't be found",
        " weights in memory, by phase: answering 60.7 GB, drawing 10.8 GB",
    ):
        assert sum(each.startswith(line) for each in lines) == 1, line
    assert [name for name in METHODS if not any(line.startswith(f"{name} ") for line in table(lines))] == []
    assert next(line for line in table(lines) if line.startswith("mgie ")).endswith(">= 28.2 GB")
    assert text.count("stable-diffusion-v1-4/vae/config.json") == 1
    assert " 10 files as under prompt-to-prompt, 3.93 GB" in text
    assert " left out: editar_release.pt and 1 more" in text
    assert list(tmp_path.iterdir()) == []


def test_what_is_here_is_told_from_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "weights" / "stable-diffusion-v1-4"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "unet").mkdir()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"12345")
    cached = tmp_path / "cache" / CLIP[0] / "snapshots" / CLIP[1]
    cached.mkdir(parents=True)
    (cached / "model.safetensors").write_bytes(b"1234567")
    write_piebench(tmp_path / "data" / "PIE-Bench_v1", 1)
    text = plan(capsys, "--suite", "paper", "--methods", "masactrl", "--weights", "weights", "--data", "data")
    assert " here PIE-Bench_v1/mapping_file.json" in text and " here PIE-Bench_v1/annotation_images/" in text
    assert " here clip-vit-large-patch14/model.safetensors 7 B" in text
    assert " here stable-diffusion-v1-4/unet/diffusion_pytorch_model.safetensors 5 B" in text
    assert " MISSING stable-diffusion-v1-4/unet/config.json" in text  # a folder of the user is not filled up
    assert "stable-diffusion-v1-4/tokenizer/" not in text
    assert " an error: stable-diffusion-v1-4/model_index.json and 6 more" in text


def test_a_recipe_whose_environment_variables_are_not_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "old"\ncommand = ["${HERS}", "{folder}"]\nfiles = ["recipe.toml", "${HIS}/net.pt"]\n')
    asked = ("--methods", f"external:{recipe}", "--suite", "paper")
    text = plan(capsys, *asked)
    assert " here recipe.toml" in text and " MISSING ${HIS}/net.pt size unknown" in text
    assert " an error: the environment variable HERS is not set; the environment variable HIS is not set; " in text
    assert piebench.main(asked) == 2
    assert "old: set the environment variables HERS, HIS" in capsys.readouterr().err


def test_seconds_and_memory_are_those_of_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # the run itself has networks
    write_piebench(tmp_path / "data")
    evaluate(Arguments(data=tmp_path / "data", out=tmp_path / "out", methods=("copy-source",)), TINY)
    capsys.readouterr()
    args = Arguments(out=tmp_path / "out", methods=("copy-source", "vq-reconstruction"), dry_run=True, limit=3)
    assert evaluate(args, TINY) == []
    lines = re.sub(r" +", " ", capsys.readouterr().out).splitlines()
    (measured,) = (line for line in lines if line.startswith("copy-source none"))
    assert re.fullmatch(r"copy-source none - [\d.e-]+ \((cpu|cuda)\) \? [\d.]+ \w+ \(\w+.*\)", measured), measured
    assert any(line.startswith("vq-reconstruction") and line.endswith("not measured not measured") for line in lines)


def test_bounds_go_by_the_passes_and_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = plan(capsys, "--suite", "paper", "--methods", "prompt-to-prompt", "magicbrush")
    rows = {line.split(" ")[0]: line for line in table(text.splitlines())}
    seconds = {}
    for name in ("prompt-to-prompt", "magicbrush"):
        found = re.search(r" >= ([\d.]+) (s|min|h) >= [\d.]+ (?:s|min|h) >= (3.44|1.72) GB$", rows[name])
        assert found is not None, rows[name]
        seconds[name] = float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]
    assert seconds["magicbrush"] / seconds["prompt-to-prompt"] == pytest.approx(300 / 250, rel=0.08)

    monkeypatch.undo()  # the UNet is built, without weights, to count what a pass takes
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        unet(torch.empty(1, 4, 64, 64), torch.tensor(1), torch.empty(1, 77, 768))
    assert counter.get_total_flops() == pytest.approx(UNET_FLOPS, rel=0.001)
    assert sum(parameter.numel() for parameter in unet.parameters()) == UNET_PARAMETERS


@pytest.mark.parametrize("task", ["depth", "canny", "segmentation"])
def test_of_the_translation_benchmarks(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = plan(capsys, "--task", task, "--suite", "paper", benchmark=translation)
    scored = {"depth": "dpt-large/pytorch_model.bin", "canny": "", "segmentation": "deeplabv3_r101-d8"}[task]
    assert " to fetch inception-2015-12-05.pt 95.6 MB" in text and f" to fetch {scored}" in text
    assert " MISSING unicontrol.ckpt 5.78 GB Apache-2.0" in text and "uni-controlnet/uni.ckpt" in text
    assert "controlnet 5.72 GB and 6 of unknown size UNet 40, ControlNet 40 >= " in text
    assert ("t2i-adapter: left out, T2I-Adapter has no network" in text) == (task == "segmentation")
    assert (" UNet 102, T2I-Adapter 1 " in text) == (task != "segmentation")
    assert list(tmp_path.iterdir()) == []


def test_the_miniature_is_drawn_and_has_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = plan(capsys)
    assert " to make piebench/" in text and " here perception.safetensors" in text
    assert " here transformer.safetensors" in text and "tokens decoded" in text
    assert "null-text-inversion" not in text  # it isn't quick


def test_a_checkpoint_lists_what_its_folder_lacks(tmp_path: Path) -> None:
    files = ASSETS["diffusion/controlnet-depth"].files
    net = Asset(name="net", files=files, repository="someone/net", revision="0" * 40, sizes={"config.json": 3})
    states = {file.name: (file.size, file.path, file.comes) for file in net.locate(tmp_path)}
    assert states["net/config.json"] == (3, None, "fetched")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_bytes(b"{}")
    states = {file.name: (file.size, file.path, file.comes) for file in net.locate(tmp_path)}
    assert states["net/config.json"] == (3, tmp_path / "net" / "config.json", "given")
    assert states["net/diffusion_pytorch_model.safetensors"] == (None, None, "given")
