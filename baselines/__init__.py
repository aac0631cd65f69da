"""The methods that edit and those that translate, by name, and their cheap constructors: networks come with `load`."""

from collections.abc import Callable

from baselines.copy_source import CopySource
from baselines.editar import EditARMethod
from baselines.method import Method, MethodContext, Translator
from baselines.uni_controlnet import UniControlNet
from baselines.unicontrol import UniControl
from baselines.vq_reconstruction import VQReconstruction

METHODS: dict[str, Callable[[MethodContext], Method]] = {
    "copy-source": CopySource,
    "vq-reconstruction": VQReconstruction,
    "editar": EditARMethod,
}
TRANSLATORS: dict[str, Callable[[MethodContext], Translator]] = {
    "editar": EditARMethod,
    "unicontrol": UniControl,
    "uni-controlnet": UniControlNet,
}
# Methods that nobody trained for the miniature: there "all" leaves them out, and their constructors refuse.
OFFICIAL_ONLY = frozenset({"unicontrol", "uni-controlnet"})
