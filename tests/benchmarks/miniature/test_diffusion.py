"""The whole build of the latent diffusion at a tiny size: what it exports loads into the pipelines unchanged."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.miniature.build_diffusion import STAGES, Arguments, main
from benchmarks.miniature.train.clip_words import clip_tokenizer
from benchmarks.miniature.train.diffusion_networks import (
    DiffusionConfig,
    TextToImage,
    make_adapter,
    make_controlnet,
    make_instruct,
    make_vae,
    standardise,
)
from benchmarks.miniature.train.diffusion_training import (
    CONTROLS,
    INSTRUCT,
    Plan,
    edit_noise_error,
    leave_out,
    load_instruct,
    load_text_to_image,
    noise_error,
    pictures,
    spread_timesteps,
    steering,
)
from benchmarks.miniature.train.latents import Encoded, Pairs, read_pairs, read_shards, training_scenes
from benchmarks.miniature.world.edits import random_edit
from benchmarks.miniature.world.render import condition, render
from benchmarks.miniature.world.scene import VOCABULARY, Scene, Thing, caption
from editar.training.loop import TrainConfig

LENGTH = 40  # tokens of a text
SIZES = DiffusionConfig(
    vae_widths=(4, 4, 4, 8),
    latent_channels=8,
    unet_widths=(8, 16),
    text_width=8,
    text_layers=1,
    hint_widths=(4, 4, 4, 4),
)
STEPS = TrainConfig(steps=2, batch_size=4, checkpoint_every=1, log_every=1, learning_rate=1e-3, bfloat16=False)
PLAN = Plan(
    networks=SIZES, vae=STEPS, unet=STEPS, controlnet=STEPS, adapter=STEPS, instruct=STEPS, shards=2, pair_shards=2,
    scenes=4, sample=4,
)  # fmt: skip
THING = Thing(shape="heart", colour="red", material="striped", content="cross", size=4, column=0, row=8, flipped=True)
THINGS = tuple(replace(THING, column=column, size=size) for column, size in ((0, 3), (3, 3), (6, 2)))
FULLEST = Scene(background="wall", style="pixel art", things=THINGS)  # to say of it takes the most words


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folders of a whole build: checkpoints, weights."""
    root = tmp_path_factory.mktemp("diffusion")
    main(Arguments(folder=root / "build", out=root / "weights", device="cpu"), PLAN)
    return root / "build", root / "weights"


def _draw(pipeline, **more) -> Image.Image:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a red disc in a meadow", num_inference_steps=2, guidance_scale=2.0, generator=torch.Generator().manual_seed(0),
        **more,
    ).images[0]  # fmt: skip


@pytest.mark.slow  # a whole build
def test_the_exported_folders_load_through_the_pipelines_and_draw(built):
    folder = built[1] / "diffusion"
    map_image = Image.fromarray(condition(FULLEST, "depth"))
    plain = _draw(StableDiffusionPipeline.from_pretrained(folder))
    assert plain.size == (64, 64) and plain.mode == "RGB"
    for name in CONTROLS:
        if name.startswith("controlnet"):
            control = ControlNetModel.from_pretrained(folder / name)
            pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, controlnet=control)
            image = _draw(pipeline, image=map_image)
        else:
            adapter = T2IAdapter.from_pretrained(folder / name)
            assert adapter.config.in_channels == {"depth": 3, "canny": 1}[name.rsplit("-", 1)[1]]
            pipeline = StableDiffusionAdapterPipeline.from_pretrained(folder, adapter=adapter)
            image = _draw(pipeline, image=map_image if name.endswith("depth") else map_image.convert("L"))
        assert image.size == (64, 64), name
        assert np.asarray(image).tobytes() != np.asarray(plain).tobytes(), name


@pytest.mark.slow  # a whole build
def test_the_exported_instruct_pix2pix_edits_by_instruction(built):
    """Its U-Net and text encoder stand in its folder; the rest is the text-to-image model's."""
    folder = built[1] / "diffusion"
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        folder,
        unet=UNet2DConditionModel.from_pretrained(folder / INSTRUCT),
        text_encoder=CLIPTextModel.from_pretrained(folder / INSTRUCT / "text_encoder"),
    )
    pipeline.set_progress_bar_config(disable=True)

    def edit(**changes) -> bytes:
        call = {
            "prompt": "make the red heart blue", "image": Image.fromarray(render(FULLEST)), "num_inference_steps": 3,
            "guidance_scale": 5.0, "image_guidance_scale": 1.5, "generator": torch.Generator().manual_seed(0),
        }  # fmt: skip
        image = pipeline(**{**call, **changes}).images[0]
        assert image.size == (64, 64) and image.mode == "RGB"
        return image.tobytes()

    plain = edit()
    assert edit() == plain
    assert edit(prompt="remove the red heart") != plain
    assert edit(image=Image.new("RGB", (64, 64))) != plain


@pytest.mark.slow  # a whole build
def test_the_export_is_half_precision_with_curves_and_digests(built):
    build, weights = built
    files = {file.relative_to(weights).as_posix() for file in weights.rglob("*.safetensors")}
    assert set(json.loads((weights / "digests.json").read_text())) == files and len(files) == 3 + len(CONTROLS) + 2
    unet = StableDiffusionPipeline.from_pretrained(weights / "diffusion").unet
    instruct, trained = weights / "diffusion" / INSTRUCT, load_instruct(PLAN, build)
    for exported, network in (
        (unet, load_text_to_image(PLAN, build).unet),
        (UNet2DConditionModel.from_pretrained(instruct), trained.unet),
        (CLIPTextModel.from_pretrained(instruct / "text_encoder"), trained.text_encoder),
    ):
        assert exported.dtype == torch.float32
        for name, value in network.state_dict().items():
            assert torch.equal(exported.state_dict()[name], value.half().float()), name
    for stage in STAGES:
        if stage not in ("latents", "pairs", "export"):
            assert len((weights / "curves" / "diffusion" / f"{stage}.jsonl").read_text().splitlines()) == STEPS.steps
    assert not [file for file in weights.rglob("*.json") if str(weights.parent) in file.read_text()]


@pytest.mark.slow  # a whole build
@pytest.mark.slow
def test_an_interrupted_build_ends_where_an_uninterrupted_one_does(built, tmp_path):
    """Every training stops after its first step, and then goes on."""
    folder = tmp_path / "build"
    one = replace(STEPS, steps=1)
    for stages, stopped in (
        (("vae",), replace(PLAN, vae=one)),
        (("vae", "latents", "unet"), replace(PLAN, unet=one)),
        (("unet", "controlnet-canny"), replace(PLAN, controlnet=one)),
        (("controlnet-canny", "pairs", INSTRUCT), replace(PLAN, instruct=one)),
        ((INSTRUCT,), PLAN),
    ):
        main(Arguments(folder=folder, out=tmp_path, device="cpu", stages=stages), stopped)
    for stage in ("vae", "unet", "controlnet-canny", INSTRUCT):
        whole, parts = (torch.load(each / stage / "last.pt") for each in (built[0], folder))
        assert parts["step"] == whole["step"] == STEPS.steps
        for name, value in whole["model"].items():
            assert torch.equal(value, parts["model"][name]), (stage, name)


@pytest.mark.slow  # a whole build
def test_a_stage_whose_base_is_not_finished_says_what_to_do(built, tmp_path):
    arguments = Arguments(folder=tmp_path, out=tmp_path, device="cpu", stages=("latents",))
    with pytest.raises(ValueError, match="--stages vae"):
        main(arguments, PLAN)
    with pytest.raises(ValueError, match="--stages unet"):
        main(
            replace(arguments, folder=built[0], stages=("controlnet-depth",)),
            replace(PLAN, unet=replace(STEPS, steps=3)),
        )
    with pytest.raises(FileNotFoundError, match="--stages latents"):
        read_shards(built[0] / "latents", 3)
    with pytest.raises(FileNotFoundError, match="--stages pairs"):
        read_pairs(built[0] / "pairs", 3)
    with pytest.raises(ValueError):
        main(replace(arguments, stages=("paint",)), PLAN)


def test_every_word_is_one_token_and_the_longest_caption_fits():
    tokenizer = clip_tokenizer()
    ids = {word: tokenizer(word).input_ids for word in VOCABULARY}
    assert all(len(each) == 3 for each in ids.values()), ids  # between start and end
    assert len({each[1] for each in ids.values()}) == len(VOCABULARY)
    text = caption(FULLEST)
    words = tokenizer(text).input_ids
    assert len(words) == len(text.split()) + 2 <= LENGTH == tokenizer.model_max_length
    assert tokenizer.decode(words, skip_special_tokens=True) == text
    assert tokenizer("", padding="max_length").input_ids[1:] == [tokenizer.eos_token_id] * (LENGTH - 1)


@pytest.mark.slow  # a whole build
def test_unknown_words_read_as_no_words(built):
    pipeline = StableDiffusionPipeline.from_pretrained(built[1] / "diffusion")

    def read(text: str) -> torch.Tensor:
        return pipeline.encode_prompt(text, "cpu", 1, False)[0]

    assert torch.equal(read("worst quality, low quality"), read(""))
    assert not torch.equal(read("a red disc"), read(""))


@pytest.mark.slow  # a whole build
def test_shards_hold_training_scenes_and_their_maps(built):
    shard = read_shards(built[0] / "latents", 1, "segmentation")
    assert shard.latents.shape == (4, 8, 8, 8) and shard.words.shape == (4, LENGTH)
    scenes = [scene for scene, _ in zip(training_scenes(4, 0), range(4), strict=False)]
    assert not any(scene.held_out for scene in scenes)
    assert shard.maps is not None
    for scene, each in zip(scenes, shard.maps, strict=True):
        assert np.array_equal(each.permute(1, 2, 0).numpy(), condition(scene, "segmentation"))
    picked = shard.pick(torch.tensor([1, 1]), "cpu")
    assert picked.maps is not None and picked.maps.max() == 1.0 and picked.latents.dtype == torch.float32


@pytest.mark.slow  # a whole build
def test_pairs_are_edits_with_the_words_of_instructions(built):
    pairs = read_pairs(built[0] / "pairs", 2)
    count = len(pairs.words)
    assert 8 <= count <= 2 * 4 * 4 and pairs.words.shape == (count, LENGTH)
    assert pairs.source.shape == pairs.target.shape == (count, 8, 8, 8)
    assert not (pairs.source == pairs.target).flatten(1).all(1).any()
    tokenizer = CLIPTokenizer.from_pretrained(built[1] / "diffusion" / "tokenizer")
    verbs = set("make change turn replace remove delete take add put draw move place".split())  # noqa: SIM905
    for words in pairs.words:
        assert tokenizer.decode(words, skip_special_tokens=True).split()[0] in verbs
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert set(random_edit(rng).instruction.split()) <= set(VOCABULARY)


def test_a_new_instruct_pix2pix_is_the_text_to_image_model_until_it_learns_to_heed_the_source():
    torch.manual_seed(0)
    base = TextToImage(SIZES).eval()
    torch.nn.init.normal_(base.unet.conv_out.weight)
    model = make_instruct(base)
    words, times = torch.zeros(2, LENGTH, dtype=torch.long), torch.tensor([10, 900])
    noise, sources, targets = torch.randn(3, 2, 8, 8, 8)
    batch = Pairs(source=sources, target=targets, words=words)
    expected = noise_error(base, None, Encoded(latents=targets, words=words), times, noise)
    error = edit_noise_error(model, batch, times, noise)
    assert torch.allclose(error, expected, rtol=1e-4)
    error.sum().backward()
    gradient = model.unet.conv_in.weight.grad
    assert gradient is not None and gradient[:, 8:].abs().sum() > 0


def test_text_and_source_are_left_out_five_percent_each_way():
    batch = Pairs(source=torch.ones(1000, 1, 1, 1), target=torch.ones(1000, 1, 1, 1), words=torch.ones(1000, 3).long())
    left = leave_out(batch, torch.zeros(1, 3).long(), (torch.arange(1000) + 0.5) / 1000)
    text, source = left.words[:, 0] == 0, left.source.flatten() == 0
    assert (text & ~source).sum() == (source & ~text).sum() == (text & source).sum() == 50
    assert torch.equal(left.target, batch.target)


def test_standardised_latents_have_unit_variance_and_the_same_pictures():
    torch.manual_seed(0)
    vae, images = make_vae(SIZES).eval(), pictures(4, 0, 16)
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
        drawn = vae.decode(posterior.mean).sample
        noise = posterior.std / posterior.mean.std((0, 2, 3), keepdim=True)
        standardise(vae, images)
        after = vae.encode(images).latent_dist
        assert torch.allclose(after.mean.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
        assert torch.allclose(after.mean.std((0, 2, 3)), torch.ones(8), atol=1e-4)
        assert torch.allclose(after.std, noise, rtol=1e-4)
        assert torch.allclose(vae.decode(after.mean).sample, drawn, atol=1e-4)


def test_a_new_controlnet_changes_nothing_and_an_adapter_reaches_every_level():
    torch.manual_seed(0)
    base = TextToImage(SIZES).eval()
    torch.nn.init.normal_(base.unet.conv_out.weight)
    noisy, times, maps = torch.randn(2, 8, 8, 8), torch.tensor([10, 900]), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        text = base.read(torch.zeros(2, LENGTH, dtype=torch.long))
        plain = base.unet(noisy, times, text).sample
        steered = steering(make_controlnet(SIZES, base.unet).eval(), noisy, times, text, maps)
        assert torch.equal(base.unet(noisy, times, text, **steered).sample, plain)
        features = steering(make_adapter(SIZES, "depth"), noisy, times, text, maps)
        shapes = [tuple(each.shape) for each in features["down_intrablock_additional_residuals"]]
        assert shapes == [(2, 8, 8, 8), (2, 16, 4, 4)]
        assert not torch.equal(base.unet(noisy, times, text, **features).sample, plain)


def test_timesteps_are_spread_and_cubic_ones_are_noisier():
    torch.manual_seed(0)
    even, cubic = spread_timesteps(100), spread_timesteps(100, cubic=True)
    assert even.unique().numel() == 100 and even.diff().unique().tolist() in ([10], [9, 10, 11], [9, 10], [10, 11])
    assert cubic.min() >= 0 and cubic.max() <= 999
    assert (cubic >= 500).float().mean() == pytest.approx(0.5 ** (1 / 3), abs=0.02)  # u^3 < 1/2
