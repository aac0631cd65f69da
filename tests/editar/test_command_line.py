import subprocess
import sys

import pytest
from PIL import Image

from editar.__main__ import main
from editar.checkpoint import load_folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.radial_gradient("L").resize((60, 40)).save(path)
    return path


def test_edit_in_a_process_of_its_own(photo, small_folder, tmp_path):
    out = tmp_path / "new" / "out.png"
    command = [sys.executable, "-m", "editar", "edit", str(photo), "make it red", "--out", str(out)]
    done = subprocess.run([*command, "--weights", str(small_folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    assert Image.open(out).size == (32, 32)


def test_edit_repeats_itself_and_the_seed_counts(photo, small_folder, tmp_path):
    def run(name, *flags):
        out = tmp_path / name
        assert main(["edit", str(photo), "red", "--out", str(out), "--weights", str(small_folder), *flags]) == 0
        return out.read_bytes()

    first = run("a.png")
    assert run("b.png") == first
    assert len({run(f"{seed}.png", "--seed", str(seed), "--guidance", "1.5") for seed in range(4)}) > 1


def test_translate(photo, small_folder, tmp_path):
    out = tmp_path / "out.png"
    arguments = ["translate", str(photo), "a red square", "--task", "depth", "--out", str(out)]
    assert main([*arguments, "--weights", str(small_folder)]) == 0
    assert Image.open(out).size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", "{tmp}/none.jpg", "red"], "none.jpg: there is no such file"),
        (["edit", "{photo}", "red", "--weights", "{tmp}"], "no model here; expected vq.safetensors"),
        (["edit", "{photo}", "red", "--weights", "{small}", "--guidance", "-1"], "guidance is -1.0"),
        (["edit", "{photo}", "red", "--weights", "{small}", "--out", "{tmp}/out.xyz"], "unknown file extension"),
        (["convert", "{tmp}", "{tmp}/out"], "editar_release.pt: there is no such file"),
    ],
)
def test_errors_are_one_line_and_an_exit_status(photo, small_folder, tmp_path, capsys, arguments, message):
    places = {"photo": photo, "tmp": tmp_path, "small": small_folder}
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_convert_writes_a_folder_that_loads(official_folder, tmp_path):
    assert main(["convert", str(official_folder), str(tmp_path / "out"), "--half"]) == 0
    parts = load_folder(tmp_path / "out")
    assert (parts.transformer.config.layers, parts.vq.config.codebook_size, parts.text.dim) == (3, 128, 32)


def test_the_subcommands(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("edit", "translate", "train", "convert"))
