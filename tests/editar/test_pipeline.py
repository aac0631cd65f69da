import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from editar import EditAR
from editar.config import SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.decoding.cpu.linear import Int8Linear
from editar.io.tensors import CheckpointError
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel
from editar.prompts import translation_prompt
from tests.editar.marks import COMPILER


@pytest.fixture(scope="module")
def model(small_folder):
    return EditAR.from_pretrained(small_folder, width=3)


@pytest.fixture(scope="module")
def photos():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(4)]


@pytest.fixture(scope="module")
def larger_parts():
    """Matrices of more than one block of a processor's kernels, 16 tokens of 16 pixels."""
    torch.manual_seed(0)
    config = TransformerConfig(layers=2, heads=4, dim=128, vocab_size=256, grid=4, text_length=8, text_dim=16)
    transformer = EditARTransformer(config)
    torch.nn.init.normal_(transformer.output.weight)  # it starts at zero, and would predict nothing
    return Parts(
        vq=VQModel(VQConfig(channels=8, res_blocks=1, latent_channels=8, codebook_size=256, norm_groups=4)).eval(),
        transformer=transformer.eval(),
        text=WordTextEncoder(WordTextConfig(vocabulary=WORDS, length=8, dim=16, layers=1, heads=2)).eval(),
        sampling=SamplingConfig(top_k=100),
    )


WORDS = ("make", "it", "very", "red")
TEXTS = ["make the square red", "make the square blue", "the red square", ""]


def pixels(images):
    return [np.array(image).tobytes() for image in images]


def test_edits_are_square_images_one_for_each_input(model, photos):
    edited = model.edit(photos, TEXTS)
    assert [image.size for image in edited] == [(32, 32)] * 4
    assert {image.mode for image in edited} == {"RGB"}
    assert len(set(pixels(edited))) > 1
    assert model.edit([], []) == []


def test_results_depend_on_neither_batch_nor_order(model, photos):
    seeds = [1, 2, 3, 4]
    together = pixels(model.edit(photos, TEXTS, seeds=seeds))
    backwards = pixels(model.edit(photos[::-1], TEXTS[::-1], seeds=seeds[::-1]))
    alone = [pixels(model.edit([p], [t], seeds=[s]))[0] for p, t, s in zip(photos, TEXTS, seeds, strict=True)]
    assert together == alone == backwards[::-1]


@pytest.mark.parametrize(
    ("dtype", "int8"),
    [("float32", False), ("bfloat16", False), pytest.param("float32", True, marks=COMPILER),
     pytest.param("bfloat16", True, marks=COMPILER)],
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_image_and_eight_at_once_give_the_same_images(larger_parts, dtype, int8, threads):
    random = np.random.default_rng(0)
    photos = [Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(8)]
    texts, seeds = [" ".join(WORDS[: 1 + i % 4]) for i in range(8)], list(range(8))
    model = EditAR(copy.deepcopy(larger_parts), dtype=dtype, int8=int8, width=8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = pixels(model.edit(photos, texts, seeds=seeds))
        alone = [pixels(model.edit([photos[i]], [texts[i]], seeds=[seeds[i]]))[0] for i in (0, 6)]
    finally:
        torch.set_num_threads(before)
    assert [together[0], together[6]] == alone
    assert len(set(together)) == 8


@COMPILER
def test_int8_weights_take_the_place_of_the_others(small_folder, photos):
    model = EditAR.from_pretrained(small_folder, width=2, int8=True)
    assert isinstance(model.transformer.output, Int8Linear)
    edited = model.edit(photos[:2], TEXTS[:2], seeds=[1, 2])
    assert pixels(edited) == pixels(model.edit(photos[:2], TEXTS[:2], seeds=[1, 2]))
    assert [image.size for image in edited] == [(32, 32)] * 2


def test_the_seed_and_the_guidance_count(model, photos):
    def run(**settings):
        return pixels(model.edit(photos, TEXTS, **settings))

    assert run() == run(seeds=[0] * 4)
    assert run(seeds=[9] * 4) != run()
    assert run(guidance=2.0) == run()  # the folder's own
    assert run(guidance=9.0) != run()
    greedy = SamplingConfig(temperature=0.0)
    assert run(sampling=greedy, seeds=[1] * 4) == run(sampling=greedy, seeds=[2] * 4)


def test_translation_is_editing_with_the_tasks_prompt(model, photos):
    prompts = [translation_prompt("canny", text, "paper") for text in TEXTS]
    translated = model.translate(photos, TEXTS, task="canny", template="paper", seeds=[5] * 4)
    assert pixels(translated) == pixels(model.edit(photos, prompts, seeds=[5] * 4))


def test_reconstruction_is_the_tokenizers_round_trip(model, photos):
    restored = model.reconstruct(photos)
    assert [image.size for image in restored] == [(32, 32)] * 4
    assert pixels(restored[:1]) == pixels(model.reconstruct(photos[:1]))


def test_bfloat16(small_folder, photos):
    model = EditAR.from_pretrained(small_folder, dtype="bfloat16")
    assert model.transformer.norm.weight.dtype == torch.bfloat16
    assert model.vq.quant_conv.weight.dtype == torch.float32
    assert len(model.edit(photos, TEXTS)) == 4


def test_counts_that_differ_are_refused(model, photos):
    with pytest.raises(ValueError, match="3 text"):
        model.edit(photos, TEXTS[:3])
    with pytest.raises(ValueError, match="1 seed"):
        model.edit(photos, TEXTS, seeds=[1])


def test_settings_that_make_no_sense_are_refused(small_folder):
    with pytest.raises(ValueError):
        EditAR.from_pretrained(small_folder, dtype="int8")
    with pytest.raises(ValueError):
        EditAR.from_pretrained(small_folder, width=0)


def test_a_folder_without_a_model_says_what_is_expected(tmp_path):
    with pytest.raises(CheckpointError):
        EditAR.from_pretrained(tmp_path)


def test_the_authors_files_make_a_model(official_folder, photos):
    model = EditAR.from_pretrained(official_folder)
    assert model.sampling == SamplingConfig(guidance=3.0, temperature=1.0, top_k=1000, top_p=1.0)
    assert model.side == 8 * 16
    assert [image.size for image in model.edit(photos[:1], ["make it snow"])] == [(128, 128)]


def test_importing_the_package_is_light():
    code = "import sys, editar; print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        import editar

        editar.Nothing  # noqa: B018
