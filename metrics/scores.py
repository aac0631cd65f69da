"""What a metric gives for one image."""

Scores = dict[str, float | str]
"""By column: the value in raw units, or the reason why the image has none."""
