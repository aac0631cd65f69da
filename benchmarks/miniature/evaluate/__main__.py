"""`python -m benchmarks.miniature.evaluate`: how well the miniature's EditAR edits, see edits.py."""

import torch
import tyro

from benchmarks.miniature.evaluate.edits import Arguments, main

torch.set_grad_enabled(False)
main(tyro.cli(Arguments, prog="python -m benchmarks.miniature.evaluate"))
