"""Configurations of public models, as their `config.json` states them: what the operator lists are traced from.

Only extents matter. Ours from the models' own publications; what is not listed here was not published, or is of a kind
that cannot be traced (recurrent ones, RWKV, state spaces), and models of it have no operator list.
"""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
_FAMILIES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM", "phi": "PhiForCausalLM", "phi3": "Phi3ForCausalLM",
    "gpt2": "GPT2LMHeadModel", "gptj": "GPTJForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM", "opt": "OPTForCausalLM", "xglm": "XGLMForCausalLM", "bloom": "BloomForCausalLM",
    "codegen": "CodeGenForCausalLM", "starcoder2": "Starcoder2ForCausalLM",
}  # fmt: skip


def _dense(kind: str, hidden: int, layers: int, heads: int, keys: int, inner: int, vocab: int, **more: Any) -> Document:
    """Of a family that calls its extents as LLaMA does; `keys` heads of keys and values."""
    return {
        "model_type": kind, "architectures": [_FAMILIES[kind]], "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": keys, "intermediate_size": inner, "vocab_size": vocab,
        **more,
    }  # fmt: skip


def _neox(hidden: int, layers: int, heads: int, vocab: int = 50304) -> Document:
    return _dense("gpt_neox", hidden, layers, heads, heads, 4 * hidden, vocab)


def _gpt(kind: str, hidden: int, layers: int, heads: int, vocab: int, **more: Any) -> Document:
    sizes = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "vocab_size": vocab}
    return {"model_type": kind, "architectures": [_FAMILIES[kind]], **sizes, **more}


def _opt(hidden: int, layers: int, heads: int, **more: Any) -> Document:
    return _dense("opt", hidden, layers, heads, heads, 4 * hidden, 50272, ffn_dim=4 * hidden, **more)


def _xglm(hidden: int, layers: int, heads: int, inner: int) -> Document:
    sizes = {"d_model": hidden, "num_layers": layers, "attention_heads": heads, "ffn_dim": inner, "vocab_size": 256008}
    return {"model_type": "xglm", "architectures": [_FAMILIES["xglm"]], **sizes}


def _experts(kind: str, count: int, chosen: int, inner: int, dense: Document, **more: Any) -> Document:
    sizes = {"num_experts": count, "num_experts_per_tok": chosen, "moe_intermediate_size": inner}
    if kind == "mixtral":
        sizes = {"num_local_experts": count, "num_experts_per_tok": chosen}
    return {**dense, **sizes, **more}


LLAMA_7B = _dense("llama", 4096, 32, 32, 32, 11008, 32000)
LLAMA_13B = _dense("llama", 5120, 40, 40, 40, 13824, 32000)
LLAMA_70B = _dense("llama", 8192, 80, 64, 8, 28672, 32000)
LLAMA_3_8B = _dense("llama", 4096, 32, 32, 8, 14336, 128256)
LLAMA_3_70B = _dense("llama", 8192, 80, 64, 8, 28672, 128256)
LLAMA_3_405B = _dense("llama", 16384, 126, 128, 8, 53248, 128256)
MISTRAL_7B = _dense("mistral", 4096, 32, 32, 8, 14336, 32768, sliding_window=None)
PYTHIA_12B = _neox(5120, 36, 40, 50688)
QWEN3_30B = _experts(
    "qwen3_moe", 128, 8, 768, _dense("qwen3_moe", 2048, 48, 32, 4, 6144, 151936, head_dim=128), norm_topk_prob=True
)
QWEN3_235B = _experts(
    "qwen3_moe", 128, 8, 1536, _dense("qwen3_moe", 4096, 94, 64, 4, 12288, 151936, head_dim=128), norm_topk_prob=True
)
QWEN3_480B = _experts(
    "qwen3_moe", 160, 8, 2560, _dense("qwen3_moe", 6144, 62, 96, 8, 8192, 151936, head_dim=128), norm_topk_prob=True
)

GENERATING: dict[str, Document] = {
    "01-ai/Yi-6B": _dense("llama", 4096, 32, 32, 4, 11008, 64000),
    "Deci/DeciLM-7B": _dense("llama", 4096, 32, 32, 4, 14336, 32000),  # 1 to 4 heads of keys, by layer
    "EleutherAI/gpt-j-6b": _gpt("gptj", 4096, 28, 16, 50400, rotary_dim=64),
    # GPT-Neo, which itself cannot be traced, has the extents of an OPT
    "EleutherAI/gpt-neo-125m": _opt(768, 12, 12),
    "EleutherAI/gpt-neo-1.3B": _opt(2048, 24, 16),
    "EleutherAI/gpt-neo-2.7B": _opt(2560, 32, 20),
    "EleutherAI/gpt-neox-20b": _neox(6144, 44, 64, 50432),
    "EleutherAI/polyglot-ko-12.8b": _neox(5120, 40, 40, 30080),
    "EleutherAI/pythia-70m": _neox(512, 6, 8),
    "EleutherAI/pythia-160m": _neox(768, 12, 12),
    "EleutherAI/pythia-410m": _neox(1024, 24, 16),
    "EleutherAI/pythia-1.3b": _neox(2048, 24, 16),
    "EleutherAI/pythia-1.4b": _neox(2048, 24, 16),
    "EleutherAI/pythia-2.7b": _neox(2560, 32, 32),
    "EleutherAI/pythia-6.7b": _neox(4096, 32, 32, 50432),
    "EleutherAI/pythia-12b": PYTHIA_12B,
    "Qwen/Qwen1.5-0.5B": _dense("qwen2", 1024, 24, 16, 16, 2816, 151936),
    "Qwen/Qwen1.5-1.8B": _dense("qwen2", 2048, 24, 16, 16, 5504, 151936),
    "Qwen/Qwen1.5-4B": _dense("qwen2", 2560, 40, 20, 20, 6912, 151936),
    "Qwen/Qwen1.5-7B": _dense("qwen2", 4096, 32, 32, 32, 11008, 151936),
    "Qwen/Qwen1.5-14B": _dense("qwen2", 5120, 40, 40, 40, 13696, 152064),
    "Qwen/Qwen2-beta-14B": _dense("qwen2", 5120, 40, 40, 40, 13696, 152064),
    "Qwen/Qwen1.5-MoE-A2.7B": _experts(
        "qwen2_moe", 60, 4, 1408, _dense("qwen2_moe", 2048, 24, 16, 16, 5632, 151936),
        shared_expert_intermediate_size=5632,
    ),
    "Salesforce/codegen-6B-nl": _gpt("codegen", 4096, 33, 16, 51200, rotary_dim=64),
    "Salesforce/codegen-16B-nl": _gpt("codegen", 6144, 34, 24, 51200, rotary_dim=64),
    "TencentARC/Mistral_Pro_8B_v0.1": _dense("mistral", 4096, 40, 32, 8, 14336, 32000, sliding_window=None),
    "facebook/opt-125m": _opt(768, 12, 12),
    "facebook/opt-350m": _opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "facebook/opt-2.7b": _opt(2560, 32, 32),
    "facebook/opt-6.7b": _opt(4096, 32, 32),
    "facebook/opt-13b": _opt(5120, 40, 40),
    "facebook/xglm-564M": _xglm(1024, 24, 16, 4096),
    "facebook/xglm-4.5B": _xglm(2048, 48, 16, 16384),
    "facebook/xglm-7.5B": _xglm(4096, 32, 32, 16384),
    "microsoft/phi-1_5": _dense("phi", 2048, 24, 32, 32, 8192, 51200, partial_rotary_factor=0.5),
    "microsoft/rho-math-1b-v0.1": _dense("llama", 2048, 22, 32, 4, 5632, 32000),
    "openai-community/gpt2": _gpt("gpt2", 768, 12, 12, 50257),
    # served or generated from by ML.ENERGY
    **dict.fromkeys(
        ("BAIR/koala-7b", "lmsys/vicuna-7B", "metaai/llama-7B", "tatsu-lab/alpaca-7B", "project-baize/baize-v2-7B",
         "h2oai/h2ogpt-gm-oasst1-en-2048-open-llama-7b-preview-300bt-v2", "metaai/Llama-2-7b-chat-hf",
         "codellama/CodeLlama-7b-hf"), LLAMA_7B),
    **dict.fromkeys(
        ("BAIR/koala-13b", "camel-ai/CAMEL-13B-Combined-Data", "lmsys/vicuna-13B", "metaai/llama-13B",
         "nomic-ai/gpt4all-13b-snoozy", "openaccess-ai-collective/manticore-13b-chat-pyg",
         "metaai/Llama-2-13b-chat-hf", "codellama/CodeLlama-13b-hf"), LLAMA_13B),
    **dict.fromkeys(("databricks/dolly-v2-12b", "OpenAssistant/oasst-sft-1-pythia-12b"), PYTHIA_12B),
    "StabilityAI/stablelm-tuned-alpha-7b": _neox(6144, 16, 48, 50432),
    "togethercomputer/RedPajama-INCITE-7B-Chat": _neox(4096, 32, 32, 50432),
    "Salesforce/xgen-7b-8k-inst": _dense("llama", 4096, 32, 32, 32, 11008, 51200),
    "FreedomIntelligence/phoenix-inst-chat-7b": {
        "model_type": "bloom", "architectures": [_FAMILIES["bloom"]], "hidden_size": 4096, "n_layer": 30, "n_head": 32,
        "vocab_size": 250880,
    },
    "codellama/CodeLlama-34b-hf": _dense("llama", 8192, 48, 64, 8, 22016, 32000),
    "codellama/CodeLlama-70b-hf": LLAMA_70B,
    "meta-llama/Meta-Llama-3.1-8B-Instruct": LLAMA_3_8B,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_3_8B,
    **dict.fromkeys(
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-70B-Instruct",
         "meta-llama/Llama-3.3-70B-Instruct"), LLAMA_3_70B),
    **dict.fromkeys(("meta-llama/Llama-3.1-405B-Instruct", "meta-llama/Llama-3.1-405B-Instruct-FP8"), LLAMA_3_405B),
    "google/codegemma-1.1-2b": _dense("gemma", 2048, 18, 8, 1, 16384, 256000, head_dim=256),
    "google/codegemma-7b": _dense("gemma", 3072, 28, 16, 16, 24576, 256000, head_dim=256),
    "google/gemma-2-2b-it": _dense("gemma2", 2304, 26, 8, 4, 9216, 256000, head_dim=256),
    "google/gemma-2-9b-it": _dense("gemma2", 3584, 42, 16, 8, 14336, 256000, head_dim=256),
    "google/gemma-2-27b-it": _dense("gemma2", 4608, 46, 32, 16, 36864, 256000, head_dim=128),
    "google/gemma-3-12b-it": _dense("gemma3_text", 3840, 48, 16, 8, 15360, 262208, head_dim=256),
    "google/gemma-3-27b-it": _dense("gemma3_text", 5376, 62, 32, 16, 21504, 262208, head_dim=128),
    "bigcode/starcoder2-3b": _dense("starcoder2", 3072, 30, 24, 2, 12288, 49152),
    "bigcode/starcoder2-7b": _dense("starcoder2", 4608, 32, 36, 4, 18432, 49152),
    "bigcode/starcoder2-15b": _dense("starcoder2", 6144, 40, 48, 4, 24576, 49152),
    "mistralai/Mistral-7B-Instruct-v0.3": MISTRAL_7B,
    "mistralai/Mistral-Nemo-Instruct-2407": _dense(
        "mistral", 5120, 40, 32, 8, 14336, 131072, head_dim=128, sliding_window=None
    ),
    "mistralai/Mistral-Large-Instruct-2407": _dense("mistral", 12288, 88, 96, 8, 28672, 32768, sliding_window=None),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": _experts(
        "mixtral", 8, 2, 14336, _dense("mixtral", 4096, 32, 32, 8, 14336, 32000)
    ),
    "mistralai/Mixtral-8x22B-Instruct-v0.1": _experts(
        "mixtral", 8, 2, 16384, _dense("mixtral", 6144, 56, 48, 8, 16384, 32768)
    ),
    "microsoft/Phi-3-mini-4k-instruct": _dense("phi3", 3072, 32, 32, 32, 8192, 32064, pad_token_id=0),
    "microsoft/Phi-3-medium-4k-instruct": _dense("phi3", 5120, 40, 40, 10, 17920, 32064, pad_token_id=0),
    "Qwen/Qwen3-8B": _dense("qwen3", 4096, 36, 32, 8, 12288, 151936, head_dim=128),
    "Qwen/Qwen3-14B": _dense("qwen3", 5120, 40, 40, 8, 17408, 151936, head_dim=128),
    "Qwen/Qwen3-32B": _dense("qwen3", 5120, 64, 64, 8, 25600, 151936, head_dim=128),
    **dict.fromkeys(
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
        QWEN3_30B),
    **dict.fromkeys(
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
         "Qwen/Qwen3-235B-A22B-Thinking-2507", "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8"), QWEN3_235B),
    **dict.fromkeys(("Qwen/Qwen3-Coder-480B-A35B-Instruct", "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8"), QWEN3_480B),
}  # fmt: skip
"""Models that generate text, by the names the sources give them."""

RESNET_50: Document = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}
VIT_B16: Document = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
CONVNEXT_T: Document = {"model_type": "convnext", "architectures": ["ConvNextForImageClassification"]}
BERT_BASE: Document = {"model_type": "bert", "vocab_size": 30522}
BERT_LARGE: Document = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 1024, "num_hidden_layers": 24,
    "num_attention_heads": 16, "intermediate_size": 4096,
}  # fmt: skip
ENCODER: Document = {**BERT_LARGE, "num_hidden_layers": 6, "hidden_act": "relu", "vocab_size": 2}
"""`torch.nn.TransformerEncoder` of six layers, 1024 wide; embeddings of two tokens stand for none."""
