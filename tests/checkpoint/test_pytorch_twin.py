"""The weights of a vision transformer of PyTorch in its twin of Linen: the same logits.

The architecture is that of Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, with
`torch.nn.TransformerEncoder` as its body and the mean over patches as its head.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import boltax as bx
from dummies import Classifier

torch = pytest.importorskip("torch")

WIDTH, HEADS, PATCHES, LAYERS = 16, 4, 9, 2
LAYER = r"encoder\.layers\.(\d+)\."
PARTS = ("query", "key", "value")
RULES = [
    (r"patch\.weight", "patch/kernel", "conv"),
    (r"position\.weight", "position/embedding", "embedding"),
    (
        LAYER + r"self_attn\.in_proj_weight",
        [rf"block_\1/attention/{part}/kernel" for part in PARTS],
        ("linear", "reshape"),
    ),
    (
        LAYER + r"self_attn\.in_proj_bias",
        [rf"block_\1/attention/{part}/bias" for part in PARTS],
        "reshape",
    ),
    (
        LAYER + r"self_attn\.out_proj\.weight",
        r"block_\1/attention/out/kernel",
        ("linear", "reshape"),
    ),
    (LAYER + r"self_attn\.out_proj\.bias", r"block_\1/attention/out/bias"),
    (LAYER + r"(linear\d)\.weight", r"block_\1/\2/kernel", "linear"),
    (LAYER + r"(norm\d)\.weight", r"block_\1/\2/scale"),
    (LAYER + r"(\w+)\.bias", r"block_\1/\2/bias"),
    (r"encoder\.norm\.weight", "norm/scale"),
    (r"encoder\.norm\.bias", "norm/bias"),
    (r"head\.weight", "head/kernel", "linear"),
]


class TorchVit(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = torch.nn.Conv2d(3, WIDTH, 4, stride=4)
        self.position = torch.nn.Embedding(PATCHES, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, HEADS, 24, 0.0, "gelu", batch_first=True, norm_first=True
        )
        norm = torch.nn.LayerNorm(WIDTH)
        self.encoder = torch.nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, 3)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2) + self.position.weight
        return self.head(self.encoder(x).mean(1))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(1e-5, name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(HEADS, name="attention")(y)
        y = nn.Dense(24, name="linear1")(nn.LayerNorm(1e-5, name="norm2")(x))
        return x + nn.Dense(WIDTH, name="linear2")(nn.gelu(y, approximate=False))


class Vit(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = nn.Conv(WIDTH, (4, 4), (4, 4), name="patch")(images)
        x = x.reshape(x.shape[0], PATCHES, WIDTH)
        x = x + nn.Embed(PATCHES, WIDTH, name="position")(jnp.arange(PATCHES))[None]
        for number in range(LAYERS):
            x = Block(name=f"block_{number}")(x)
        return nn.Dense(3, name="head")(nn.LayerNorm(1e-5, name="norm")(x).mean(1))


def test_the_logits_are_those_of_pytorch(tmp_path):
    torch.manual_seed(0)
    theirs = TorchVit().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # no bias of 0, no scale of 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    save_file({n: t.numpy() for n, t in theirs.state_dict().items()}, tmp_path / "vit.safetensors")
    trainer = Classifier(
        Vit,
        exmp_input=(images, np.zeros(2, np.int32)),
        logger_params={"base_log_dir": str(tmp_path / "runs"), "logger_type": "none"},
        enable_progress_bar=False,
    )
    before = jax.device_get(trainer.state.params["head"]["kernel"])
    with pytest.raises(bx.errors.CheckpointError, match=r"shape +params/head/kernel"):
        trainer.load_weights(
            tmp_path / "vit.safetensors", rules=[*RULES[:-1], (r"head\.weight", "head/kernel")]
        )
    np.testing.assert_array_equal(trainer.state.params["head"]["kernel"], before)
    assert trainer.load_weights(tmp_path / "vit.safetensors", rules=RULES) == []
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(trainer.predict_batch((images,)), expected, atol=1e-4, rtol=0)
