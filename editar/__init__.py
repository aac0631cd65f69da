"""EditAR: instruction editing and image translation with one autoregressive model.

Nothing heavy is imported here; `editar.EditAR` is loaded on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editar.pipeline import EditAR

__version__ = "0.1.0"
__all__ = ["EditAR", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "EditAR":
        from editar.pipeline import EditAR

        return EditAR
    raise AttributeError(f"module 'editar' has no attribute {name!r}")
