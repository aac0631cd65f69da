"""The methods, by name, and their constructors, which are cheap: networks come with `load`."""

from collections.abc import Callable

from baselines.copy_source import CopySource
from baselines.editar import EditARMethod
from baselines.method import Method, MethodContext
from baselines.vq_reconstruction import VQReconstruction

METHODS: dict[str, Callable[[MethodContext], Method]] = {
    "copy-source": CopySource,
    "vq-reconstruction": VQReconstruction,
    "editar": EditARMethod,
}
