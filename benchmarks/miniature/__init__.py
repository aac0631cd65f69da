"""The embedded suite: a procedural world with exact ground truth, and small networks really trained on it."""
