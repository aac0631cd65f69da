"""Training data: readers of the published sets and of one's own pairs, mixed into one endless, resumable stream."""
