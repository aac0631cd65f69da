"""`python -m benchmarks.miniature.evaluate`: how well the miniature's EditAR edits, see editar.py."""

import torch
import tyro

from benchmarks.miniature.evaluate.editar import Arguments, main

torch.set_grad_enabled(False)
main(tyro.cli(Arguments, prog="python -m benchmarks.miniature.evaluate"))
