import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editar.__main__ import main
from editar.io.digests import file_digest
from editar.model.checkpoint import read_model
from tests.editar.marks import COMPILER


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.radial_gradient("L").resize((60, 40)).save(path)
    return path


@pytest.fixture
def edit(photo, small_folder, tmp_path, capsys):
    """Runs `edit` on the photo, or another path; its exit status must be 0. Returns the printed paths."""

    def run(*flags, image=photo, text="make it red"):
        assert main(["edit", str(image), text, "--weights", str(small_folder), *map(str, flags)]) == 0
        return [tmp_path / line for line in capsys.readouterr().out.splitlines()]

    return run


def told(result):
    return json.loads(result.with_suffix(".edit.json").read_text("utf-8"))


def test_edit_in_a_process_of_its_own(photo, small_folder, tmp_path):
    out = tmp_path / "new" / "out.png"
    command = [sys.executable, "-X", "importtime", "-m", "editar", "edit", str(photo), "make it red", "--out", str(out)]
    done = subprocess.run([*command, "--weights", str(small_folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    assert Image.open(out).size == (32, 32)
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "torch" in imported
    assert not imported & {"sympy", "transformers"}  # seconds each, and not needed here


def test_edit_repeats_itself_and_the_seed_counts(edit, tmp_path):
    def run(name, *flags):
        [out] = edit("--out", tmp_path / name, *flags)
        return out.read_bytes()

    first = run("a.png")
    assert run("b.png") == first
    assert len({run(f"{seed}.png", "--seed", seed, "--guidance", "1.5") for seed in range(4)}) > 1


def test_several_samples_are_those_of_their_seeds_and_go_on_a_sheet(edit, tmp_path):
    paths = edit("--out", tmp_path / "out.png", "--seed", 3, "--samples", 3)
    assert [path.name for path in paths] == ["out-3.png", "out-4.png", "out-5.png", "out.png"]
    [alone] = edit("--out", tmp_path / "alone.png", "--seed", 4, "--batch-size", 3)
    assert alone.read_bytes() == paths[1].read_bytes()
    sheet = Image.open(paths[3])
    assert sheet.size == (2 * 32 + 8, 2 * 32 + 8)  # the source, and the three
    assert sheet.crop((40, 40, 72, 72)).tobytes() == Image.open(paths[2]).tobytes()


def test_a_folder_is_edited_image_by_image(edit, photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one.jpg", "two.PNG"):
        Image.open(photo).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    paths = edit("--out", tmp_path / "made", image=folder)
    assert [path.name for path in paths] == ["one.png", "two.png"]
    paths = edit("--out", tmp_path / "made", "--samples", 2, "--batch-size", 3, image=folder)
    assert [path.name for path in paths] == [
        "one-0.png", "one-1.png", "two-0.png", "two-1.png", "one.png", "two.png",
    ]  # fmt: skip


def test_a_file_is_edited_as_its_upright_8_bit_twin_is(edit, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    files: dict[str, Any] = {
        "deep": (Image.fromarray(grey * np.uint16(257)), {}, grey),
        "sideways": (Image.fromarray(grey), {"exif": exif}, np.rot90(grey, -1)),
    }
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, (image, options, twin) in files.items():
        image.save(folder / f"{name}.png", **options)
        Image.fromarray(twin).save(folder / f"{name}-twin.png")
    made = {path.stem: path.read_bytes() for path in edit("--out", tmp_path / "made", image=folder)}
    assert all(made[name] == made[f"{name}-twin"] for name in files)


def test_a_wide_photo_is_cropped_padded_or_stretched_and_pasted_back(edit, tmp_path, capsys):
    wide = tmp_path / "wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 192, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(wide)
    made = {}
    for fit in ("crop", "pad", "stretch"):
        [small] = edit("--out", tmp_path / f"{fit}.png", "--fit", fit, image=wide)
        [whole] = edit("--out", tmp_path / f"{fit}-whole.png", "--fit", fit, "--paste-back", image=wide)
        made[fit] = np.asarray(Image.open(whole)), Image.open(small)
        assert made[fit][0].shape == pixels.shape and made[fit][1].size == (32, 32)
        assert main(shlex.split(told(whole)["command"])[3:]) == 0 and capsys.readouterr().out
        assert np.array_equal(np.asarray(Image.open(whole)), made[fit][0])
    whole, small = made["crop"]
    assert np.array_equal(np.delete(whole, np.s_[64:128], 1), np.delete(pixels, np.s_[64:128], 1))
    assert np.array_equal(whole[:, 64:128], np.asarray(small.resize((64, 64), Image.Resampling.LANCZOS)))
    whole, small = made["stretch"]
    assert np.array_equal(whole, np.asarray(small.resize((192, 64), Image.Resampling.LANCZOS)))
    whole, small = made["pad"]
    content = small.crop((0, 10, 32, 21))  # a third of 32 rows
    assert np.array_equal(whole, np.asarray(content.resize((192, 64), Image.Resampling.LANCZOS)))


def test_what_is_cut_off_and_left_out_is_told_once(edit, photo, small_folder, tmp_path, capsys):
    folder = tmp_path / "photos"
    for name in ("a.jpg", "b.JPEG", "trip/c.jpg", "trip/a.jpg", "__MACOSX/d.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(photo).save(folder / name, "JPEG")
    for name in ("._a.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "e.heic"):
        (folder / name).write_bytes(b"no image")
    arguments = ["edit", str(folder), "make it red", "--weights", str(small_folder), "--out", str(folder / "made")]
    assert main(arguments) == 0
    done = capsys.readouterr()
    assert [Path(line).name for line in done.out.splitlines()] == ["a.png", "b.png"]
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    for told_once in (
        "images in subfolders of", "left beside the files: .DS_Store, ._a.jpg", "(5 in all)", "are skipped (1): e.heic",
        "of 2 images that are not square, such as", "results are 32x32 pixels; --paste-back",
    ):  # fmt: skip
        assert sum(told_once in note for note in notes) == 1
    assert main([*arguments, "--recursive"]) == 0
    found = [Path(line).relative_to(folder / "made") for line in capsys.readouterr().out.splitlines()]
    assert sorted(map(str, found)) == ["a.png", "b.png", "trip/a.png", "trip/c.png"]


@pytest.mark.parametrize("numbers", [("--dtype", "bfloat16"), pytest.param(("--int8",), marks=COMPILER)], ids=str)
def test_the_sidecar_has_what_repeats_the_image(edit, photo, small_folder, tmp_path, capsys, numbers):
    flags = ("--samples", 2, "--guidance", 1.5, "--temperature", 0.9, "--top-k", 20, "--top-p", 0.95)
    paths = edit("--out", tmp_path / "out.png", *flags, *numbers, text='make it "red" & blue')
    was, content = paths[1].read_bytes(), told(paths[1])
    words = shlex.split(content["command"])
    assert words[:3] == ["python", "-m", "editar"]
    paths[1].unlink()
    assert main(words[3:]) == 0
    assert capsys.readouterr().out.strip() == str(paths[1])
    assert paths[1].read_bytes() == was
    assert told(paths[1]) == content
    assert content["seed"] == 1
    assert content["software"]["threads"] == torch.get_num_threads()
    assert content["sampling"] == {"guidance": 1.5, "temperature": 0.9, "top_k": 20, "top_p": 0.95}
    assert content["request"]["image_sha256"] == file_digest(photo)
    assert content["result"] == {"file": "out-1.png", "sha256": file_digest(paths[1])}
    name = "vq.safetensors"
    assert content["model"]["files"][name] == file_digest(small_folder / name)
    model = content["model"]
    assert (model["dtype"], model["int8"]) == (("float32", True) if "--int8" in numbers else ("bfloat16", False))
    assert model["images_at_a_time"] == 2


def test_translate(photo, small_folder, tmp_path):
    out = tmp_path / "out.png"
    arguments = ["translate", str(photo), "red", "--task", "depth", "--out", str(out)]
    assert main([*arguments, "--weights", str(small_folder)]) == 0
    assert Image.open(out).size == (32, 32)
    request = told(out)["request"]
    assert request["prompt"] == "Given the depth image, generate an image following the description: red"
    first = out.read_bytes()
    assert main(shlex.split(told(out)["command"])[3:]) == 0
    assert out.read_bytes() == first


def test_what_an_instruction_loses_is_told(edit, tmp_path, small_folder, photo, capsys):
    arguments = ["edit", str(photo), "make the red square blue and add a Green one", "--weights", str(small_folder)]
    assert main([*arguments, "--out", str(tmp_path / "out.png")]) == 0
    assert "too long for the encoder's 8 positions; cut off: 'a green one'" in capsys.readouterr().err
    assert told(tmp_path / "out.png")["request"]["cut_off"] == "a green one"
    [short] = edit("--out", tmp_path / "short.png", text="make the red square blue and add")
    assert short.read_bytes() == (tmp_path / "out.png").read_bytes()
    assert told(short)["request"]["cut_off"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", "{tmp}/none.jpg", "red"], "none.jpg: there is no such file"),
        (["edit", "{tmp}/broken", "red"], "WEBP; {tmp}/broken/b.png: it can't be read as an image"),
        (["edit", "{tmp}/empty", "red"], "empty: no images in this folder"),
        (["edit", "{tmp}/twins", "red"], "several images are called a"),
        (["edit", "{photo}", " "], "the text is empty"),
        (["edit", "{photo}", "red", "--weights", "{tmp}"], "no model here; expected vq.safetensors"),
        (["edit", "{photo}", "red", "--weights", "{small}", "--guidance", "-1"], "guidance is -1.0"),
        (["edit", "{photo}", "red", "--weights", "{small}", "--out", "{tmp}/out.xyz"], "unknown file extension"),
        (["edit", "{photo}", "red", "--weights", "{small}", "--out", "{photo}"], "overwritten by its own result"),
        (["edit", "{photo}", "red", "--samples", "0"], "--samples is 0; it must be at least 1"),
        (
            ["edit", "{photo}", "red", "--weights", "{small}", "--batch-size", "1000000000000"],
            "GB free; a smaller width (--batch-size of `python -m editar`) and dtype bfloat16 (--dtype bfloat16) need",
        ),
        pytest.param(
            ["edit", "{photo}", "red", "--weights", "{small}", "--batch-size", "1000000000000", "--int8"],
            "GB of memory (0.0 of weights while they are read, then 0.0 of weights, ",
            marks=COMPILER,
        ),
        (
            ["edit", "{photo}", "red", "--int8", "--device", "cuda"],
            "int8 weights need a CPU and a C++ compiler",
        ),
        (
            ["edit", "{photo}", "red", "--seed", "12345678901234567890"],
            "--seed is 12345678901234567890; it must be from 0",
        ),
        (["edit", "{photo}", "red", "--guidance", "inf"], "guidance is inf; it must be finite"),
        (["edit", "{photo}", "red", "--device", "meta"], "device is 'meta', which PyTorch can't use here"),
        pytest.param(
            ["edit", "{photo}", "red", "--device", "mps"],
            "device is 'mps', which PyTorch can't use here",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="is for machines without Apple's GPUs"),
        ),
        (
            ["edit", "{photo}", "red", "--device", "gpu"],
            "device is 'gpu', which PyTorch does not know",
        ),
        pytest.param(
            ["edit", "{photo}", "red", "--device", "cuda"],
            "device is 'cuda', but PyTorch finds no CUDA GPU here; use cpu (--device cpu)",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a CUDA GPU"),
        ),
        (["translate", "{photo}", "", "--task", "canny"], "the text is empty"),
        (["convert", "{tmp}", "{tmp}/out"], "expected vq.safetensors, transformer.safetensors, text.safetensors, or"),
    ],
)
def test_errors_are_one_line_and_an_exit_status(photo, small_folder, tmp_path, capsys, arguments, message):
    for folder, names in {"broken": ("a.png", "b.png"), "empty": (), "twins": ("a.png", "a.jpg")}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("no image")
    places = {"photo": photo, "tmp": tmp_path, "small": small_folder}
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message.format(**places) in error
    assert "\n" not in error


def test_convert_writes_a_folder_that_is_the_same_model(official_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(official_folder), str(out), "--dtype", "bfloat16"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out) and "of editar_release.pt the weights under model are taken" in told.err
    was, now = (read_model(folder).load(dtype=torch.bfloat16) for folder in (official_folder, out))
    assert (now.transformer.config, now.vq.config, now.sampling) == (
        was.transformer.config,
        was.vq.config,
        was.sampling,
    )
    for name in ("transformer", "vq"):
        state = getattr(now, name).state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in getattr(was, name).state_dict().items())
    assert torch.equal(now.text(["make it snow"]), was.text(["make it snow"]))


def test_the_subcommands(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("edit", "translate", "train", "convert"))
