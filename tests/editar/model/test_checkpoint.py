import argparse
import dataclasses
import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from editar.config import SamplingConfig, VQConfig
from editar.io.digests import file_digest
from editar.io.tensors import CheckpointError, map_pickle
from editar.model.checkpoint import read_model, read_vq, save_folder
from editar.model.files import Parts
from editar.model.official import NOT_IN_TEXT_TO_IMAGE, load_text_to_image, official_transformer, official_vq
from editar.model.t5 import T5TextEncoder
from editar.model.vq import VQModel


@pytest.fixture(scope="module")
def small_vq():
    return VQModel(VQConfig(channels=8, norm_groups=4, res_blocks=1, latent_channels=8, codebook_size=16))


@torch.no_grad()
def test_the_released_layout_loads_with_its_configuration(parity, tiny_config, tiny_expected):
    model = official_transformer(parity / "editar_tiny.pt").load()
    assert model.config == tiny_config
    assert not model.training
    e = tiny_expected
    torch.testing.assert_close(model(e["src"], e["txt"], e["tgt"]), e["logits"], rtol=1e-4, atol=1e-5)


def test_loaded_weights_can_be_trained(parity):
    model = official_transformer(parity / "editar_tiny.pt").load()
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("nested", [("model",), ("module",), ("state_dict",), ("model", "module"), ()])
def test_official_files_are_found_under_every_nesting(tmp_path, small_vq, nested):
    content = small_vq.state_dict()
    for name in nested:
        content = {name: content}
    torch.save(content, tmp_path / "vq.pt")
    loaded = official_vq(tmp_path / "vq.pt", small_vq.config).load()
    for name, tensor in small_vq.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_which_weights_were_taken_is_known(official_folder, tmp_path):
    folder = tmp_path / "released"
    shutil.copytree(official_folder, folder)
    state, arguments = map_pickle(folder / "editar_release.pt")
    wrapped = {f"module.{name}": tensor.clone() for name, tensor in state.items()}
    torch.save({"ema": wrapped, "args": argparse.Namespace(**arguments)}, folder / "editar_release.pt")
    files = read_model(folder)
    assert files.taken() == {"editar_release.pt": "ema, without module.", "vq_ds16_t2i.pt": "model"}
    was, now = (read.transformer.load().state_dict() for read in (read_model(official_folder), files))
    assert all(torch.equal(now[name], tensor) for name, tensor in was.items())


def test_half_precision_files_come_back_as_float32(tmp_path, small_vq):
    torch.save({"model": {k: v.bfloat16() for k, v in small_vq.state_dict().items()}}, tmp_path / "vq.pt")
    loaded = official_vq(tmp_path / "vq.pt", small_vq.config).load()
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("layout", ["zip", "legacy", "bare pickle"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, layout):
    path, target = tmp_path / "editar_release.pt", tmp_path / "owned"
    content = {"model": {"w": torch.zeros(1)}, "args": Evil(target)}
    if layout == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(CheckpointError):
        map_pickle(path)
    assert not target.exists()


def test_only_argparse_namespaces_are_let_through(tmp_path):
    arguments = argparse.Namespace(n_head=4, lr=1e-4)
    torch.save({"model": {"w": torch.zeros(1)}, "args": arguments}, tmp_path / "a.pt")
    assert map_pickle(tmp_path / "a.pt")[1] == {"n_head": 4, "lr": 1e-4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable PyTorch checkpoint|could run code"),
        (b"PK\x03\x04 cut off", "not a readable PyTorch checkpoint|could run code"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        map_pickle(path)


def test_a_truncated_download_is_refused(tmp_path, parity):
    whole = (parity / "editar_tiny.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        map_pickle(tmp_path / "cut.pt")


def test_missing_files_and_states_are_named(tmp_path):
    with pytest.raises(CheckpointError):
        map_pickle(tmp_path / "nothing.pt")
    torch.save({"model": {"steps": 3}}, tmp_path / "no.pt")
    with pytest.raises(CheckpointError):
        map_pickle(tmp_path / "no.pt")


def test_missing_unexpected_and_misshapen_keys_are_all_named(tmp_path, small_vq):
    state = small_vq.state_dict()
    del state["quant_conv.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["post_quant_conv.bias"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "vq.pt")
    with pytest.raises(CheckpointError) as caught:
        official_vq(tmp_path / "vq.pt", small_vq.config).load()
    message = str(caught.value)
    assert "vq.pt does not fit VQModel" in message
    assert "missing quant_conv.bias" in message
    assert "unexpected extra.weight" in message
    assert "post_quant_conv.bias has shape (3,) instead of (8,)" in message


def test_training_starts_from_the_text_to_image_model(tmp_path, tiny, tiny_config):
    state = {name: tensor for name, tensor in tiny.state_dict().items() if name not in NOT_IN_TEXT_TO_IMAGE}
    torch.save({"model": state}, tmp_path / "t2i.pt")
    model = load_text_to_image(tmp_path / "t2i.pt", tiny_config)
    assert torch.equal(model.norm.weight, tiny.norm.weight)
    assert not torch.equal(model.alignment.weight, tiny.alignment.weight)
    del state["norm.weight"]
    torch.save({"model": state}, tmp_path / "t2i.pt")
    with pytest.raises(CheckpointError, match=r"missing norm\.weight$"):
        load_text_to_image(tmp_path / "t2i.pt", tiny_config)


def test_what_is_no_editar_checkpoint_is_named(tmp_path, small_vq):
    torch.save({"model": small_vq.state_dict()}, tmp_path / "editar_release.pt")
    with pytest.raises(CheckpointError, match="tok_embeddings"):
        official_transformer(tmp_path / "editar_release.pt").load()


def test_an_unknown_size_asks_for_the_configuration(tmp_path, tiny, tiny_config):
    torch.save({"model": tiny.state_dict()}, tmp_path / "tiny.pt")
    with pytest.raises(CheckpointError):
        official_transformer(tmp_path / "tiny.pt").load()
    assert official_transformer(tmp_path / "tiny.pt", tiny_config).load().config == tiny_config


def test_a_folder_comes_back_as_it_was_saved(small_parts, small_folder):
    loaded = read_model(small_folder).load()
    assert loaded.sampling == small_parts.sampling
    for name in ("vq", "transformer", "text"):
        was, now = getattr(small_parts, name), getattr(loaded, name)
        assert now.config == was.config
        assert all(torch.equal(now.state_dict()[key], value) for key, value in was.state_dict().items())
    assert sorted(path.name for path in small_folder.iterdir()) == [
        "text.safetensors",
        "transformer.safetensors",
        "vq.safetensors",
    ]


def test_float16_halves_the_files_and_loads_as_float32(small_parts, small_folder, tmp_path):
    save_folder(tmp_path, small_parts, dtype=torch.float16)
    loaded = read_model(tmp_path).load()
    assert loaded.transformer.norm.weight.dtype == torch.float32
    name = "transformer.safetensors"
    assert (tmp_path / name).stat().st_size < 0.6 * (small_folder / name).stat().st_size
    weight = small_parts.transformer.output.weight
    torch.testing.assert_close(loaded.transformer.output.weight, weight, rtol=1e-3, atol=1e-6)


def test_values_beyond_float16_are_refused(small_parts, tmp_path):
    parts = small_parts
    parts.transformer.norm.weight.data[0] = 1e6
    try:
        with pytest.raises(CheckpointError, match=r"norm\.weight"):
            save_folder(tmp_path, parts, dtype=torch.float16)
    finally:
        parts.transformer.norm.weight.data[0] = 1.0
    with pytest.raises(ValueError):
        save_folder(tmp_path, parts, dtype=torch.float64)


def test_bfloat16_halves_the_transformer_and_leaves_the_tokenizer(small_parts, small_folder, tmp_path):
    save_folder(tmp_path, small_parts, dtype=torch.bfloat16)
    loaded = read_model(tmp_path).load(dtype=torch.bfloat16)
    assert torch.equal(loaded.transformer.output.weight, small_parts.transformer.output.weight.bfloat16())
    assert torch.equal(loaded.vq.quant_conv.weight, small_parts.vq.quant_conv.weight)
    name = "transformer.safetensors"
    assert (tmp_path / name).stat().st_size < 0.6 * (small_folder / name).stat().st_size
    assert torch.equal(read_vq(tmp_path).load().quant_conv.weight, small_parts.vq.quant_conv.weight)


def test_a_t5_is_stored_with_the_model(tiny, t5_folder, tmp_path):
    vq = VQModel(VQConfig(channels=8, norm_groups=4, codebook_size=128))
    text = T5TextEncoder(t5_folder)
    folder, moved = tmp_path / "here", tmp_path / "there"
    save_folder(folder, Parts(vq=vq, transformer=tiny, text=text, sampling=SamplingConfig()))
    folder.rename(moved)
    loaded = read_model(moved).load().text
    assert isinstance(loaded, T5TextEncoder)
    assert torch.equal(loaded(["make it snow"]), text(["make it snow"]))
    assert {"t5/config.json", "t5/model.safetensors", "vq.safetensors"} <= set(read_model(moved).digests())
    with pytest.raises(FileNotFoundError):
        read_model(moved, tmp_path / "elsewhere").load()


def test_digests_are_the_files_own_wherever_the_t5_is(official_folder, t5_folder):
    inside, outside = read_model(official_folder).digests(), read_model(official_folder, t5_folder).digests()
    assert inside["vq_ds16_t2i.pt"] == file_digest(official_folder / "vq_ds16_t2i.pt")
    name = "model.safetensors"
    assert inside[f"flan-t5-xl/{name}"] == outside[f"{t5_folder.name}/{name}"] == file_digest(t5_folder / name)


def test_what_training_starts_from_cannot_edit(tmp_path):
    (tmp_path / "t2i_XL_stage2_512.pt").touch()
    with pytest.raises(CheckpointError):
        read_model(tmp_path)


@pytest.fixture
def copy(small_parts, tmp_path):
    save_folder(tmp_path, small_parts)
    return tmp_path


def rewrite(path, *, state=None, **metadata):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        old = file.metadata()
    save_file(load_file(path) if state is None else state, path, {**old, **metadata})


def test_a_folder_that_lacks_a_file_names_it(copy):
    (copy / "text.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"text\.safetensors"):
        read_model(copy).load()


def test_a_damaged_safetensors_file_is_refused(copy):
    whole = (copy / "vq.safetensors").read_bytes()
    (copy / "vq.safetensors").write_bytes(whole[:-10])
    with pytest.raises(CheckpointError):
        read_model(copy).load()


def test_files_in_each_others_place_are_refused(copy):
    (copy / "vq.safetensors").write_bytes((copy / "text.safetensors").read_bytes())
    with pytest.raises(CheckpointError):
        read_model(copy).load()


def test_another_format_is_refused(copy):
    rewrite(copy / "vq.safetensors", format="editar-bench/99")
    with pytest.raises(CheckpointError, match="editar-bench/99"):
        read_model(copy).load()


def test_an_unknown_or_impossible_setting_is_refused(copy):
    rewrite(copy / "vq.safetensors", config=json.dumps({"colour": 3}))
    with pytest.raises(CheckpointError):
        read_model(copy).load()
    rewrite(copy / "vq.safetensors", config=json.dumps({"channels": 0}))
    with pytest.raises(CheckpointError):
        read_model(copy).load()


def test_keys_that_do_not_fit_the_configuration_are_named(copy):
    state = load_file(copy / "transformer.safetensors")
    state["surplus"] = torch.zeros(1)
    del state["norm.weight"]
    rewrite(copy / "transformer.safetensors", state=state)
    with pytest.raises(CheckpointError, match="unexpected surplus"):
        read_model(copy).load()


def test_parts_that_do_not_fit_each_other_are_refused(small_parts, t5_folder):
    config = VQConfig(channels=8, res_blocks=1, latent_channels=8, codebook_size=16, codebook_dim=4, norm_groups=4)
    with pytest.raises(CheckpointError):
        dataclasses.replace(small_parts, vq=VQModel(config))
    with pytest.raises(CheckpointError, match="9 x 32"):
        dataclasses.replace(small_parts, text=T5TextEncoder(t5_folder, length=9))
