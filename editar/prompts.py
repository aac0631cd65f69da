"""The texts a model gets for each task.

Two wordings of the translation prompts: the one that the released checkpoint was trained with (the default), and the
one that the paper prints. Editing gives the instruction as it is.
"""

TASKS = ("depth", "canny", "segmentation")

_RELEASED_CONDITIONS = {"depth": "depth image", "canny": "canny edge image", "segmentation": "segmentation mask"}
_PAPER_CONDITIONS = {"depth": "depth", "canny": "canny edge", "segmentation": "segmentation"}

TEMPLATES: dict[str, dict[str, str]] = {
    "released": {
        task: f"Given the {condition}, generate an image following the description: {{caption}}"
        for task, condition in _RELEASED_CONDITIONS.items()
    },
    "paper": {
        task: f"Given the {condition}, generate the image following the instruction: {{caption}}"
        for task, condition in _PAPER_CONDITIONS.items()
    },
}


def translation_prompt(task: str, caption: str, template: str = "released") -> str:
    """The text for one of TASKS and a caption, in one of the wordings of TEMPLATES.

    >>> translation_prompt("canny", "a red house")
    'Given the canny edge image, generate an image following the description: a red house'
    >>> translation_prompt("canny", "a red house", template="paper")
    'Given the canny edge, generate the image following the instruction: a red house'
    """
    if template not in TEMPLATES:
        raise ValueError(f"prompt template {template!r} is unknown; choose one of {', '.join(TEMPLATES)}")
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown; choose one of {', '.join(TASKS)}")
    return TEMPLATES[template][task].replace("{caption}", caption)
