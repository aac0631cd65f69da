"""`python -m editar train`: from a folder of pairs to a model, through kills and resumption."""

import copy
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from editar.__main__ import main
from editar.config import SIZES, TransformerConfig
from editar.io.tensors import map_safetensors, write_safetensors
from editar.model.checkpoint import read_model, save_folder
from editar.model.official import NOT_IN_TEXT_TO_IMAGE, official_transformer
from editar.model.t5 import T5TextEncoder
from editar.model.transformer import EditARTransformer
from editar.training.data.mixture import Batch
from editar.training.distributed import Group
from editar.training.loss import editar_loss
from editar.training.settings import Config, parse
from editar.training.start import ModelConfig, checkpoint_activations, compile_layers, load_start
from editar.training.token_cache import TokenCache
from editar.training.train import Objective, Student, work
from tests.editar.training.training_sets import write_jsonl

SETTINGS = """
out = "{out}"
previews = 2

[model]
start = "{start}"

[data]
workers = 0
block = 4
sources = [{{ kind = "pairs", folder = "{pairs}" }}]

[distillation]
teacher = "none"

[training]
steps = 6
batch_size = 4
learning_rate = 1e-2
checkpoint_every = 2
log_every = 1
bfloat16 = false
"""


@pytest.fixture(scope="module")
def settings(small_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    pairs = write_jsonl(folder / "pairs", 10)
    path = folder / "settings.toml"
    path.write_text(SETTINGS.format(out=folder / "out", start=small_folder, pairs=pairs))
    return path


def losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in lines]


@pytest.fixture(scope="module")
def still_folder(small_parts, tmp_path_factory) -> Path:
    """The small model without dropout, whose draws would be other ones in another process."""
    config = replace(small_parts.transformer.config, token_dropout=0.0, residual_dropout=0.0, ffn_dropout=0.0)
    transformer = EditARTransformer(config)
    transformer.load_state_dict(small_parts.transformer.state_dict())
    folder = tmp_path_factory.mktemp("still")
    save_folder(folder, replace(small_parts, transformer=transformer))
    return folder


@pytest.fixture(scope="module")
def trained(settings) -> Path:
    """Six steps without interruption."""
    assert main(["train", str(settings)]) == 0
    return parse(settings).out


def test_a_folder_of_pairs_makes_a_model_that_edits(trained, small_folder, tmp_path):
    before, after = read_model(small_folder).load(), read_model(trained / "model").load()
    assert torch.equal(before.vq.state_dict()["quantize.embedding.weight"], after.vq.quantize.embedding.weight)
    assert torch.equal(before.transformer.img_uncond_embedding, after.transformer.img_uncond_embedding)  # frozen
    assert not torch.equal(before.transformer.output.weight, after.transformer.output.weight)
    picture, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    assert main(["edit", str(picture), "make it blue", "--weights", str(trained / "model"), "--out", str(out)]) == 0
    assert Image.open(out).size == (32, 32)
    assert [step for step, *_ in losses(trained)] == [1, 2, 3, 4, 5, 6]
    assert losses(trained)[-1][1] < losses(trained)[0][1]
    line = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"cross_entropy/edit", "samples_per_second", "tokens_per_second", "data_wait", "memory"} <= set(line)
    previews = sorted(path.name for path in (trained / "previews").iterdir())
    assert previews == ["0000002.png", "0000004.png", "0000006.png"]
    assert Image.open(trained / "previews" / previews[-1]).size == (96, 64)


@pytest.mark.slow  # test_training.py interrupts one within this process
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_is_killed_goes_on_bit_for_bit(settings, trained, tmp_path, accumulate):
    """Killed with no warning while it runs, at a time that nothing here chooses."""
    flags = ["--out", str(tmp_path / "killed"), "--training.accumulate", str(accumulate), "--previews", "0"]
    command = [sys.executable, "-m", "editar", "train", str(settings), *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "killed").glob("step-*")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert main(["train", str(settings), *flags]) == 0
    whole = trained
    if accumulate > 1:
        whole = tmp_path / "whole"
        assert main(["train", str(settings), *flags, "--out", str(whole)]) == 0
    assert losses(tmp_path / "killed") == losses(whole)
    states = [read_model(folder / "model").load().transformer.state_dict() for folder in (whole, tmp_path / "killed")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [path.name for path in (tmp_path / "killed").glob("step-*")] == ["step-00000006"]


def test_a_run_with_other_settings_is_not_mixed_in(settings, trained, capsys):
    assert main(["train", str(settings), "--training.learning-rate", "0.5"]) == 2
    assert "holds a run with other settings (training.learning_rate)" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["vq.safetensors", "pairs.jsonl", "pairs.images", "teacher"])
def test_a_run_whose_start_data_or_teacher_were_replaced_is_refused(settings, tmp_path, capsys, what):
    config = parse(settings)
    before, start = (config.model.start, config.data.sources[0].folder), tmp_path / "start"
    path, text = tmp_path / "settings.toml", settings.read_text()
    for old, new in zip(before, (start, tmp_path / "pairs"), strict=True):
        assert old is not None
        shutil.copytree(old, new)
        text = text.replace(str(old), str(new))
    path.write_text(text)
    flags = ["--out", str(tmp_path / "out"), "--training.steps", "2", "--previews", "0"]
    if what == "teacher":
        write_teacher(tmp_path / "teacher", 0)
        flags += ["--distillation.teacher", "dinov2", "--distillation.source", str(tmp_path / "teacher")]
    assert main(["train", str(path), *flags]) == 0
    assert main(["train", str(path), *flags]) == 0  # nothing has changed
    if what == "vq.safetensors":
        tensors, metadata = map_safetensors(start / what)
        tensors["quantize.embedding.weight"] = tensors["quantize.embedding.weight"].flip(0)
        write_safetensors(start / what, {name: tensor.clone() for name, tensor in tensors.items()}, metadata)
    elif what == "pairs.jsonl":
        listed = tmp_path / "pairs" / what
        listed.write_bytes(listed.read_bytes().replace(b"a", b"e", 1))
    elif what == "pairs.images":
        image = next((tmp_path / "pairs").rglob("*.png"))
        Image.new("RGB", (5, 5)).save(image)
    else:
        write_teacher(tmp_path / "teacher", 1)
    assert main(["train", str(path), *flags]) == 2
    told = capsys.readouterr().err
    assert "holds a run with other settings (digests." in told and what in told


def write_teacher(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=768, num_hidden_layers=1, mlp_ratio=1, image_size=518, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)


@pytest.mark.slow
def test_a_finished_training_that_is_repeated_leaves_the_same_bytes(settings, trained):
    files = {path: path.read_bytes() for path in (trained / "model").iterdir()}
    command = [sys.executable, "-m", "editar", "train", str(settings)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path: path.read_bytes() for path in files} == files


def test_the_moving_average_is_what_is_kept(settings, trained, tmp_path):
    """Over one step from the start it is a tenth of the way that the weights themselves went."""
    flags = ["--previews", "0", "--training.steps", "1"]
    assert main(["train", str(settings), *flags, "--out", str(tmp_path / "plain")]) == 0
    assert main(["train", str(settings), *flags, "--out", str(tmp_path / "ema"), "--training.ema", "0.9"]) == 0
    name = "layers.0.attention.wqkv.weight"
    start, plain, average = (
        read_model(folder).load().transformer.state_dict()[name]
        for folder in (parse(settings).model.start, tmp_path / "plain" / "model", tmp_path / "ema" / "model")
    )
    torch.testing.assert_close(average, start + 0.1 * (plain - start))


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "accumulate"), [(0, 2), (1, 1)])
def test_two_processes_train_as_one_does(settings, still_folder, tmp_path, shards, accumulate):
    """By torchrun, with a moving average and layers that are computed again; then one process goes on from their
    checkpoint."""
    flags = ["--model.start", str(still_folder), "--previews", "0", "--shards", str(shards)]
    flags += ["--training.accumulate", str(accumulate), "--training.ema", "0.5", "--model.activation-checkpointing"]
    assert main(["train", str(settings), *flags, "--out", str(tmp_path / "one")]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    two = ["editar", "train", str(settings), *flags, "--out", str(tmp_path / "two"), "--training.steps", "4"]
    done = subprocess.run([*torchrun, *two], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert main(["train", str(settings), *flags, "--out", str(tmp_path / "two")]) == 0
    for line, other_line in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert other_line == pytest.approx(line, rel=1e-4)
    start, one, other = (
        read_model(folder).load().transformer.output.weight
        for folder in (still_folder, tmp_path / "one" / "model", tmp_path / "two" / "model")
    )
    assert (one - other).norm() < 1e-2 * (one - start).norm()


def test_rows_that_cannot_be_used_are_listed_or_end_the_run(settings, tmp_path, capsys):
    pairs = write_jsonl(tmp_path / "pairs", 6)
    (pairs / "images" / "2-source.png").write_bytes(b"no picture")
    flags = ["--out", str(tmp_path / "out"), "--data.sources.0.folder", str(pairs), "--previews", "0"]
    assert main(["train", str(settings), *flags, "--data.fault-rate", "0.1"]) == 0
    skipped = [json.loads(line)["row"] for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert 3 <= len(skipped) <= 5 and all("pairs.jsonl line 3: " in row for row in skipped)  # 24 rows in passes of 5
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["skipped"] for line in lines) == len(skipped)
    assert main(["train", str(settings), *flags, "--out", str(tmp_path / "strict"), "--data.fault-rate", "0"]) == 2
    assert "more than data.fault_rate (0.0) allows" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_its_batch(settings, small_folder, tmp_path, capsys):
    flags = ["--out", str(tmp_path), "--training.learning-rate", "1e30", "--training.clip-norm", "1e30"]
    assert main(["train", str(settings), *flags, "--previews", "0", "--training.checkpoint-every", "100"]) == 2
    assert "not_finite.json" in capsys.readouterr().err
    report = json.loads((tmp_path / "not_finite.json").read_text())
    (origins,) = report["batch"]  # of one process
    assert len(origins) == 4 and all("pairs.jsonl line" in origin for origin in origins)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 6", "step = 6", "training.step: no such setting; there are steps, batch_size"),
        ("steps = 6", "", "training.steps must be given"),
        ("steps = 6", 'steps = "6"', "training.steps is '6'; it must be a int"),
        ('kind = "pairs"', 'kind = "pear"', "data.sources.0.kind is 'pear'; choose one of seed, pipe"),
        ("workers = 0", "workers = -1", "data.workers is -1; it must be at least 0"),
        ("[model]", "[model", "line"),
    ],
)
def test_faults_of_the_settings_are_named(settings, tmp_path, old, new, message):
    path = tmp_path / "wrong.toml"
    path.write_text(settings.read_text().replace(old, new))
    with pytest.raises(ValueError, match=f"wrong.toml: (.|\n)*{message}"):
        parse(path)


def test_flags_change_single_settings(settings):
    config = parse(
        settings, ["--training.steps", "9", "--data.sources.0.weight", "2", "--distillation.crop", "aligned"]
    )
    assert (config.training.steps, config.training.batch_size) == (9, 4)
    assert config.data.sources[0].weight == 2.0 and config.distillation.crop == "aligned"


def test_the_recipe_of_the_paper():
    config: Config = parse(Path(__file__).parents[3] / "configs" / "editar_xl.toml")
    shares = {source.kind: source.weight for source in config.data.sources}
    assert shares == {"seed": 0.30, "pipe": 0.25, "depth": 0.15, "canny": 0.15, "segmentation": 0.15}
    assert (config.training.steps, config.training.batch_size, config.training.learning_rate) == (40_000, 64, 1e-4)
    assert (config.training.weight_decay, config.training.betas, config.training.clip_norm) == (0.05, (0.9, 0.95), 1.0)
    assert (config.distillation.teacher, config.distillation.weight) == ("dinov2", 0.5)
    assert config.model.initial == "text-to-image" and not config.model.trainable_null


def test_the_objective_is_the_reference_loss_on_its_batch(small_parts):
    """The released loss, reached through tokens that the objective makes itself."""
    torch.manual_seed(0)
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    batch = Batch(
        origins=["a", "b", "c"], tasks=["edit", "depth", "edit"], texts=["make it red", "blue", "the square"],
        source=images, target=images.flip(3), skipped=[],
    )  # fmt: skip
    student = Student(small_parts.transformer.eval())
    group = Group(device=torch.device("cpu"))
    values = Objective(small_parts, None, 0.5, seed=11, group=group)(student, batch, 0)
    scaled = images.float() / 127.5 - 1
    condition, target = small_parts.vq.encode(scaled), small_parts.vq.encode(scaled.flip(3))
    r = torch.rand(3, generator=torch.Generator().manual_seed(11 << 32))
    nulls = (r < 0.1, (r < 0.05) | (r > 0.95))
    expected = editar_loss(small_parts.transformer, condition, small_parts.text(batch.texts), target, *nulls)
    assert values["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)
    depth, edit = values["cross_entropy/depth"].item(), values["cross_entropy/edit"].item()
    assert (depth + 2 * edit) / 3 == pytest.approx(expected["loss"].item(), rel=1e-5)


def test_training_from_the_official_files(settings, official_folder, tiny, tiny_config, tmp_path, monkeypatch):
    """LlamaGen's text-to-image transformer, small instead of XL, with the official tokenizer and a T5."""
    monkeypatch.setitem(SIZES, "XL", tiny_config)
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("vq_ds16_t2i.pt", "flan-t5-xl"):
        (folder / name).symlink_to(official_folder / name)
    state = {name: value for name, value in tiny.state_dict().items() if name not in NOT_IN_TEXT_TO_IMAGE}
    torch.save({"model": state}, folder / "t2i_XL_stage2_512.pt")
    flags = ["--model.start", str(folder), "--model.initial", "text-to-image", "--out", str(tmp_path / "out")]
    flags += ["--training.steps", "1", "--training.batch-size", "2", "--previews", "0", "--training.bfloat16"]
    assert main(["train", str(settings), *flags]) == 0
    trained = read_model(tmp_path / "out" / "model").load()
    start, end = tiny.norm.weight, trained.transformer.norm.weight
    assert not torch.equal(start, end) and (end - start).abs().max() < 0.02  # two steps' length
    official = T5TextEncoder(folder / "flan-t5-xl")
    assert torch.equal(trained.text(["make it snow"]), official(["make it snow"]))


def test_tokens_are_encoded_once(small_parts, tmp_path):
    torch.manual_seed(0)
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    asked = []

    def encode(unknown: torch.Tensor) -> torch.Tensor:
        asked.append(len(unknown))
        return small_parts.vq.encode(unknown.float() / 127.5 - 1)

    expected = encode(images)
    cache = TokenCache(tmp_path, small_parts.vq)
    assert torch.equal(cache(images[[0, 1, 0]], encode), expected[[0, 1, 0]])
    again = TokenCache(tmp_path, small_parts.vq)  # as a later run, or another process, finds it
    assert torch.equal(again(images[[2, 1, 0]], encode), expected[[2, 1, 0]])
    assert asked == [3, 2, 1]
    other = copy.deepcopy(small_parts.vq)
    other.quantize.embedding.weight.data.neg_()
    TokenCache(tmp_path, other)(images, encode)  # another tokenizer's tokens are others
    assert asked == [3, 2, 1, 3]


def test_a_training_is_the_same_with_a_cache_of_tokens(settings, trained, tmp_path):
    flags = ["--out", str(tmp_path / "out"), "--token-cache", str(tmp_path / "cache"), "--previews", "0"]
    assert main(["train", str(settings), *flags]) == 0
    assert losses(tmp_path / "out") == losses(trained)


def test_activation_checkpointing_changes_no_gradient(parity, tiny_expected):
    gradients = []
    for again in (False, True):
        model = official_transformer(parity / "editar_tiny.pt").load()
        if again:
            checkpoint_activations(model)
        values = editar_loss(model, tiny_expected["src"], tiny_expected["txt"], tiny_expected["tgt"])
        values["loss"].backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
        assert set(model.state_dict()) == set(official_transformer(parity / "editar_tiny.pt").load().state_dict())
    assert len(gradients[0]) > 20 and all(
        torch.equal(value, gradients[1][name]) for name, value in gradients[0].items()
    )


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="on a CPU torch.compile needs a C++ compiler"
)
@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients(parity, tiny_expected):
    gradients = []
    for compiled in (False, True):
        model = official_transformer(parity / "editar_tiny.pt").load()
        if compiled:
            compile_layers(model)
        editar_loss(model, tiny_expected["src"], tiny_expected["txt"], tiny_expected["tgt"])["loss"].backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-5)


def test_null_embeddings_can_be_trained(small_folder):
    frozen = load_start(ModelConfig(start=small_folder)).transformer
    trainable = load_start(ModelConfig(start=small_folder, trainable_null=True)).transformer
    names = {name for name, _ in trainable.named_parameters()} - {name for name, _ in frozen.named_parameters()}
    assert names == {"img_uncond_embedding", "cls_embedding.uncond_embedding"}
    assert all(torch.equal(value, trainable.state_dict()[name]) for name, value in frozen.state_dict().items())
    tokens, null = torch.zeros(1, 4, dtype=torch.int64), torch.tensor([True])
    editar_loss(trainable, tokens, torch.randn(1, 8, 16), tokens, null, null)["loss"].backward()
    gradients = [trainable.get_parameter(name).grad for name in names]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_the_work_of_a_sample_is_what_pytorch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    config = TransformerConfig(layers=2, heads=2, dim=64, vocab_size=128, grid=4, text_length=8, text_dim=32)
    model = EditARTransformer(replace(config, ffn_dropout=0.0))
    tokens = torch.randint(128, (1, 16))
    with FlopCounterMode(display=False) as counter:
        model(tokens, torch.randn(1, 8, 32), tokens).sum().backward()
    assert work(config).tokens == 39
    assert counter.get_total_flops() == pytest.approx(work(config).operations, rel=0.1)
