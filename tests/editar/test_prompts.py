import pytest

from editar.prompts import TASKS, TEMPLATES, translation_prompt


@pytest.mark.parametrize(
    ("task", "condition"),
    [("depth", "depth image"), ("canny", "canny edge image"), ("segmentation", "segmentation mask")],
)
def test_the_released_wording_is_the_default(task, condition):
    expected = f"Given the {condition}, generate an image following the description: A cat on a mat."
    assert translation_prompt(task, "A cat on a mat.") == expected


def test_the_papers_wording():
    expected = "Given the depth, generate the image following the instruction: a cat"
    assert translation_prompt("depth", "a cat", "paper") == expected


def test_captions_may_hold_braces():
    assert translation_prompt("depth", "{x} {caption}").endswith(": {x} {caption}")


def test_every_wording_has_every_task():
    assert all(tuple(wording) == TASKS for wording in TEMPLATES.values())


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError):
        translation_prompt("pose", "a cat")
    with pytest.raises(ValueError):
        translation_prompt("depth", "a cat", "mine")
