"""CUDA graphs: one per size of the cache, so that a step costs one launch.

Written for CUDA and not run by the tests of a machine without it.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from editar.decoding.forward import CachedTransformer, step_block


def compile_blocks(model: CachedTransformer, token_RW: Tensor) -> None:
    """Let torch.compile fuse what is in a layer: once for all layers, and again for each size of the cache."""
    try:
        with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
            model.step_block = torch.compile(step_block, dynamic=False, fullgraph=True)
            for slots in model.sizes:
                model.restart()
                model.resize(slots)
                model.decode_many(token_RW)
    except Exception as error:  # whatever a compiler may raise
        warnings.warn(f"decoding is slower than it could be: torch.compile failed with {_name(error)}", stacklevel=2)
        model.step_block = step_block
    model.restart()


def capture_steps(model: CachedTransformer, step: Callable[[], None]) -> dict[int, torch.cuda.CUDAGraph] | None:
    """A graph of a step for every size of the model's cache; None, with a warning, where that does not work."""
    graphs: dict[int, torch.cuda.CUDAGraph] = {}
    try:
        pool = torch.cuda.graph_pool_handle()  # they never run at once, and may share what they work in
        for slots in model.sizes:
            model.restart()
            model.resize(slots)
            graphs[slots] = torch.cuda.CUDAGraph()
            _warm(step)
            with torch.cuda.graph(graphs[slots], pool=pool):
                step()
    except RuntimeError as error:
        warnings.warn(f"decoding is slower than it could be: no CUDA graph, for {_name(error)}", stacklevel=2)
        return None
    finally:
        model.restart()
    return graphs


def _warm(step: Callable[[], None]) -> None:
    """Run a step aside, as capturing wants it: what libraries set up at a first call can't be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
