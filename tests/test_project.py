"""The project's own files: what CONTRIBUTING.md shows works, and the versions install anywhere."""

import re
import runpy
from pathlib import Path

from PIL import Image, ImageOps

from baselines.method import EditRequest, MethodContext
from benchmarks.runs.generate import GuardedMethod
from editar.training.data.mixture import Source
from editar.training.settings import parse

ROOT = Path(__file__).parents[1]


def test_the_method_of_the_contributing_guide_answers_requests(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (tmp_path / "mirror.py").write_text(example)
    method = runpy.run_path(str(tmp_path / "mirror.py"))["Mirror"](
        MethodContext(suite="miniature", weights=None, device="cpu", image_side=4)
    )
    image = Image.linear_gradient("L").resize((4, 4)).rotate(90).convert("RGB")
    request = EditRequest(
        sample_id="000000000000",
        image=image,
        instruction="mirror it",
        source_prompt="a gradient",
        target_prompt="a mirrored gradient",
        blend_words=None,
        seed=1,
    )
    (answer,) = GuardedMethod(method).generate([request])
    assert isinstance(answer, Image.Image), answer
    assert answer.tobytes() == ImageOps.mirror(image).tobytes() != image.tobytes()
    assert method.settings() == {"axis": "vertical"}


def test_files_that_the_contributing_guide_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    made = (".nox", "runs/")
    named = {name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name and not name.startswith(made)}
    assert len(named) > 10
    assert [name for name in named - {"baselines/mirror.py"} if not (ROOT / name).exists()] == []


def test_the_settings_of_the_training_guide_are_settings(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "model-and-training.md").read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    config = parse(tmp_path / "mine.toml")
    assert config.data.sources == (Source(kind="pairs", folder=Path("my-pairs")),)
    assert (ROOT / config.model.start).is_dir() and config.distillation.teacher == "none"


def test_constraints_are_plain_versions():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9]+(\.[0-9]+)*", line)] == []
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    assert {"torch", "torchvision", "numpy", "transformers", "pytest", "ruff"} <= set(names)
