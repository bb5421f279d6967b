"""Export architectures with more than one tower: encoder-decoders, two encoders, a mixture of experts; small, seeded.

python tests/models/export_multi.py t5 --out DIR     writes DIR/model.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import export
from export import Exportable

PAIRS = {0: "batch"}


class EncoderDecoder(nn.Module):
    """Logits of the decoder over an encoded input; no cache is kept."""

    def __init__(self, model: nn.Module, source: str) -> None:
        super().__init__()
        self.model, self.source = model, source

    def forward(self, source: torch.Tensor, decoder_input_ids: torch.Tensor) -> Any:
        return self.model(**{self.source: source}, decoder_input_ids=decoder_input_ids, use_cache=False)[0]


class TwoEncoders(nn.Module):
    """Similarity of every image to every text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> Any:
        return self.model(input_ids=input_ids, pixel_values=pixel_values).logits_per_image


def t5() -> Exportable:
    config = transformers.T5Config(
        vocab_size=1000, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=4,
        attn_implementation="eager",  # torch 2.13 cannot decompose the fused one with a bias and a symbolic batch
    )  # fmt: skip
    tokens = {"source": torch.randint(0, 1000, (2, 16)), "decoder_input_ids": torch.randint(0, 1000, (2, 8))}
    return Exportable(
        EncoderDecoder(transformers.T5ForConditionalGeneration(config), "input_ids"), tokens, "logits", PAIRS
    )


def whisper() -> Exportable:
    config = transformers.WhisperConfig(
        vocab_size=1000, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=16, max_source_positions=50,
        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    sound = {"source": torch.rand(2, 16, 100), "decoder_input_ids": torch.randint(3, 1000, (2, 8))}
    return Exportable(
        EncoderDecoder(transformers.WhisperForConditionalGeneration(config), "input_features"), sound, "logits", PAIRS
    )


def clip() -> Exportable:
    text = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 32, "eos_token_id": 999}  # fmt: skip
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    ids = torch.randint(0, 999, (2, 8))
    ids[:, -1] = 999
    example = {"input_ids": ids, "pixel_values": torch.rand(2, 3, 32, 32)}
    return Exportable(TwoEncoders(transformers.CLIPModel(config)), example, "logits_per_image", PAIRS)


def mixture() -> Exportable:
    """Each token gathers the weights of its experts: the form that exports without shapes that depend on data."""
    config = transformers.MixtralConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
        use_cache=False, experts_implementation="batched_mm",
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    ids = torch.randint(0, 1000, (2, 16))
    return Exportable(
        export.TextModel(model), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "logits", export.TOKENS
    )


MODELS = {make.__name__: make for make in (t5, whisper, clip, mixture)}


if __name__ == "__main__":
    export.MODELS.update(MODELS)
    export.main()
