"""EditAR on a GPU that isn't there: devices, dtypes, waiting for the device, memory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from editar.config import SIZES, DraftConfig, SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.decoding.decoder import Batch as Block
from editar.memory import cache_bytes
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel
from editar.training.data.mixture import Batch
from editar.training.distributed import Group
from editar.training.loop import TrainConfig, Values, train
from editar.training.loss import editar_loss
from editar.training.start import checkpoint_activations
from editar.training.train import Objective, Student
from tests.rehearsal.fake_gpu import Fault, fake_gpu

CONFIG = TransformerConfig(layers=2, heads=4, dim=64, vocab_size=128, grid=8, text_length=120, text_dim=32)
VQ = VQConfig(channels=32, multipliers=(1, 1, 2), res_blocks=1, latent_channels=16, codebook_size=128)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# The distribution's sums, in which float32 would round small probabilities away (editar/decoding/sampling.py).
SAMPLER = ("inverse_cdf",)
SETTINGS = {
    "sampled": SamplingConfig(guidance=3.0, top_k=50, top_p=0.9),
    "greedy": SamplingConfig(guidance=3.0, temperature=0.0),
    "unguided": SamplingConfig(guidance=1.0),
}


@pytest.fixture
def eager() -> Iterator[None]:
    """PyTorch's compiler needs the real device; what it compiles is walked as it stands."""
    with torch.compiler.set_stance("force_eager"):
        yield


def decoding(dtype: torch.dtype, settings: SamplingConfig, window: int, config: TransformerConfig = CONFIG) -> Block:
    """Two images, started."""
    device = torch.device("cuda")
    with device:
        model = EditARTransformer(config)
    batch = Block(model.to(dtype).eval(), 2, settings, DraftConfig(window=window))
    batch.start(
        torch.zeros(2, config.image_tokens, dtype=torch.int64, device=device),
        torch.zeros(2, config.text_length, config.text_dim, device=device),
        torch.zeros(2, config.image_tokens, device=device),
    )
    return batch


# No graph is captured, and decoding says so and goes on; that something could not be compiled would be an error.
without_graphs = pytest.mark.filterwarnings("ignore:decoding is slower than it could be. no CUDA graph")


@pytest.mark.usefixtures("eager")
@without_graphs
@pytest.mark.filterwarnings("error:decoding is slower than it could be. torch.compile failed")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 8])
@pytest.mark.parametrize("settings", SETTINGS)
@torch.inference_mode()
def test_decoding(dtype: torch.dtype, window: int, settings: str) -> None:
    with fake_gpu(SAMPLER) as walk:
        batch = decoding(dtype, SETTINGS[settings], window)
        before = walk.operators
        for number in range(2):
            batch.advance(number * window)
        assert walk.operators - before > 2 * 20 * CONFIG.layers
        assert batch.tokens_BN.is_cuda and batch.model.layers[0].own_k.dtype == dtype


@pytest.mark.usefixtures("eager")
@without_graphs
@torch.inference_mode()
def test_memory_of_decoding() -> None:
    """What stays between two steps are the caches, and the peak is below what `require_memory` asks for. That is more
    than 10% above: it counts a prefix for each branch of guidance, of which this decoder keeps one."""
    config = replace(SIZES["B"], layers=2)
    with fake_gpu(SAMPLER) as walk:
        batch = decoding(torch.bfloat16, SETTINGS["sampled"], 1, config)
        batch.advance(config.image_tokens - 2)
        weights = sum(value.nbytes for value in batch.model.model.state_dict().values())
        held, peak = walk.held - weights, walk.peak - weights
    assert held == pytest.approx(2 * 2 * config.cached_numbers(rows=2), rel=0.02)
    all_layers = SIZES["B"].layers / config.layers * held + (peak - held)  # what is worked with is one layer's
    assert all_layers < 2 * cache_bytes(SIZES["B"], torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_tokenizer_and_text_encoder(dtype: torch.dtype) -> None:
    with fake_gpu():
        with torch.device("cuda"):
            vq = VQModel(VQ).to(dtype).eval()
        tokens = vq.encode(torch.zeros(2, 3, 32, 32, device="cuda", dtype=dtype))
        assert tokens.is_cuda and tokens.dtype == torch.int64
        if dtype == torch.float32:  # as it is published, and always used
            assert vq.decode(tokens).is_cuda
        words = WordTextConfig(vocabulary=("make", "it", "red"), length=8, dim=32, layers=1)
        text = WordTextEncoder(words).to("cuda", dtype)(["make it red", "red"])
        assert text.is_cuda and text.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_t5(dtype: torch.dtype) -> None:
    from transformers import T5Config, T5EncoderModel

    sizes = T5Config(d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
    with fake_gpu():
        model: nn.Module = T5EncoderModel(sizes).eval()
        model.to("cuda", dtype)
        ids = torch.zeros(2, 12, dtype=torch.int64, device="cuda")
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        assert states.is_cuda and states.dtype == dtype


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_with_distillation(dtype: torch.dtype | None, checkpointing: bool) -> None:
    """The way forward; the way back needs PyTorch's engine, which needs the device."""
    device = torch.device("cuda")
    with fake_gpu(autocast=dtype):
        with device:
            model = EditARTransformer(CONFIG)
        if checkpointing:
            checkpoint_activations(model)
        tokens = torch.zeros(2, CONFIG.image_tokens, dtype=torch.int64, device=device)
        null = torch.zeros(2, dtype=torch.bool, device=device)
        text = torch.zeros(2, CONFIG.text_length, CONFIG.text_dim, device=device)
        teacher = torch.zeros(2, 16, CONFIG.distillation_dim, device=device)
        values = editar_loss(model, tokens, text, tokens, null, null, teacher, tasks=("edit", "depth"))
        assert {value.dtype for value in values.values()} == {torch.float32}
        assert all(value.is_cuda for value in values.values())
        assert {"distillation", "cross_entropy/edit", "cross_entropy/depth"} <= set(values)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_objective(autocast: torch.dtype | None) -> None:
    """A batch as the loader gives it, on the CPU, to its loss: tokens, texts and dropout are made on the way."""
    config = replace(CONFIG, text_length=8)
    words = WordTextConfig(vocabulary=("make", "it", "red"), length=8, dim=config.text_dim, layers=1)
    side = config.grid * VQ.downsampling
    with fake_gpu(autocast=autocast):
        vq, text, model = (
            VQModel(VQ).to("cuda"),
            WordTextEncoder(words).to("cuda"),
            EditARTransformer(config).to("cuda"),
        )
        parts = Parts(vq=vq, text=text, transformer=model, sampling=SamplingConfig())
        images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
        batch = Batch(
            source=images, target=images, texts=["make it red", "red"], tasks=["edit", "edit"], origins=["a", "b"],
            skipped=[], number=0,
        )  # fmt: skip
        objective = Objective(parts, None, 0.0, 0, Group(device=torch.device("cuda")))
        assert objective(Student(model), batch, 0)["loss"].is_cuda


class Waits(Exception):
    pass


def steps(folder: Path, loss_of_step: int | None = None) -> None:
    """Train without values until the log's first line, which needs them. Fake numbers on a CPU, where the way back can
    be walked: whatever would make the host wait for a GPU needs values there too."""

    def batch(number: int) -> Tensor:
        if number == 3:
            raise Waits
        return torch.zeros(2, CONFIG.image_tokens, dtype=torch.int64)

    def loss(student: Student, tokens: Tensor, step: int) -> Values:
        text = torch.zeros(2, CONFIG.text_length, CONFIG.text_dim)
        teacher = torch.zeros(2, 16, CONFIG.distillation_dim)
        values = student(tokens, text, tokens, teacher=teacher, tasks=("edit", "depth"))
        if step == loss_of_step:
            values["loss"].item()
        return values

    with FakeTensorMode():
        model = EditARTransformer(CONFIG)
        checkpoint_activations(model)
        train(Student(model), loss, batch, TrainConfig(steps=8, batch_size=2), folder)


def test_a_training_step_does_not_wait_for_the_device(tmp_path: Path) -> None:
    with pytest.raises(Waits):
        steps(tmp_path)


def test_a_value_read_in_a_training_step_is_found(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="_local_scalar_dense"):
        steps(tmp_path, loss_of_step=1)


class Faulty(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.shift = fault, torch.zeros(4)  # not a buffer: stays on the CPU
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "a tensor on the CPU":
            return x + self.shift
        if self.fault == "an item":
            return x * x.sum().item()
        if self.fault == "a copy to the CPU":
            return self.linear(x.cpu().to(x.device))
        if self.fault == "a mask":
            return x[x > 0]
        if self.fault == "float64":
            return self.linear(x.double().float())
        if self.fault == "two dtypes":
            return x.bfloat16() @ self.linear.weight
        return self.linear(x)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("a tensor on the CPU", "same device"),
        ("an item", "waits for the device in _local_scalar_dense"),
        ("a copy to the CPU", "waits for the device in _to_copy"),
        ("a mask", "waits for the device in"),
        ("float64", "float64 numbers on the device"),
        ("two dtypes", "dtype|takes"),
    ],
)
def test_planted_faults_are_found(fault: str, message: str) -> None:
    with fake_gpu():
        module, x = Faulty(fault).to("cuda"), torch.zeros(2, 4, device="cuda")
        with pytest.raises((Fault, RuntimeError), match=message):
            module(x)


def test_without_a_fault_nothing_is_found() -> None:
    with fake_gpu() as walk:
        x = torch.zeros(2, 4, device="cuda")
        assert Faulty("").to("cuda")(x).is_cuda
        assert walk.peak >= x.nbytes
