"""The authors' files: `editar_release.pt`, `vq_ds16_t2i.pt`, and for training `t2i_XL_stage2_512.pt`."""

from pathlib import Path

from editar.config import SIZES, TransformerConfig, VQConfig
from editar.io.tensors import CheckpointError, check_state, map_pickle
from editar.model.files import TransformerPart, VQPart
from editar.model.t5 import OFFICIAL_T5
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel

OFFICIAL_TRANSFORMER = "editar_release.pt"
OFFICIAL_VQ = "vq_ds16_t2i.pt"
OFFICIAL_TEXT_TO_IMAGE = "t2i_XL_stage2_512.pt"
# What EditAR adds to the text-to-image model it starts from.
NOT_IN_TEXT_TO_IMAGE = frozenset({"img_uncond_embedding", "alignment.weight", "alignment.bias"})


def official_vq(path: Path, config: VQConfig | None = None) -> VQPart:
    """`vq_ds16_t2i.pt`; without a configuration it is VQ-16, with the codebook's size as in the file."""
    config = config or official_vq_config(path)
    return VQPart(path=path, config=config, network=VQModel, mapped=lambda: map_pickle(path)[0])


def official_transformer(path: Path, config: TransformerConfig | None = None) -> TransformerPart:
    """`editar_release.pt`; the configuration is read off the tensors' shapes if none is given."""
    config = config or official_transformer_config(path)
    return TransformerPart(path=path, config=config, network=EditARTransformer, mapped=lambda: map_pickle(path)[0])


def find_t5(folder: Path) -> str | Path:
    """The T5 of the authors' files: flan-t5-xl/ beside them if it is there, else the hub's."""
    local = folder / OFFICIAL_T5.split("/")[1]
    return local if local.is_dir() else OFFICIAL_T5


def load_text_to_image(path: Path, config: TransformerConfig | None = None) -> EditARTransformer:
    """`t2i_XL_stage2_512.pt`, to start training from: what EditAR adds keeps its fresh initialisation."""
    state, _ = map_pickle(path)
    model = EditARTransformer(config or SIZES["XL"])
    check_state(model, state, path, may_lack=NOT_IN_TEXT_TO_IMAGE)
    model.load_state_dict(state, strict=False)  # copies, as float32
    return model


def official_vq_config(path: Path) -> VQConfig:
    """VQ-16, with the codebook's size as in the file."""
    codebook = map_pickle(path)[0].get("quantize.embedding.weight")
    if codebook is None:
        return VQConfig()
    try:
        return VQConfig(codebook_size=len(codebook))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a VQ checkpoint, its codebook is of shape {codebook.shape}") from error


def official_transformer_config(path: Path) -> TransformerConfig:
    """Of an `editar_release.pt`, read off the tensors' shapes. The number of heads leaves no trace in them: it comes
    from the training arguments, or from the released size of this depth and width."""
    state, arguments = map_pickle(path)
    try:
        vocab_size, dim = state["tok_embeddings.weight"].shape
        text_length, text_dim = state["cls_embedding.uncond_embedding"].shape
        image_tokens = state["img_uncond_embedding"].shape[0]
        distillation_dim = state["alignment.bias"].shape[0]
    except KeyError as error:
        raise CheckpointError(f"{path}: not an EditAR checkpoint, {error.args[0]} is missing") from error
    except (ValueError, IndexError) as error:  # of other dimensions
        raise CheckpointError(f"{path}: not an EditAR checkpoint ({error})") from error
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    heads = arguments.get("n_head") or next(
        (size.heads for size in SIZES.values() if (size.layers, size.dim) == (layers, dim)), None
    )
    if heads is None:
        raise CheckpointError(f"{path}: no released size has {layers} layers of width {dim}; pass the configuration")
    try:
        return TransformerConfig(
            layers=layers,
            heads=heads,
            dim=dim,
            vocab_size=vocab_size,
            grid=round(image_tokens**0.5),
            text_length=text_length,
            text_dim=text_dim,
            distillation_dim=distillation_dim,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not an EditAR checkpoint, {error}") from error
