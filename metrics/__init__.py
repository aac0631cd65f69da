"""Scores of images: functions per image, the networks they need, and the protocols that name them."""
