"""The front door for architectures: a Hugging Face `config.json` becomes one model for each phase, without weights.

The transformers package builds the modules on torch's meta device and runs them there, so only names, types and shapes
exist. Generative models have two phases: `prefill` reads `seq` tokens at once, `decode` produces one token with a
key-value cache of `past` tokens. Other models have the phase `forward`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.ir.trace import engine
from eopt.ir.trace.recorder import Recorder

MAX_CONFIG_BYTES = 1 << 20
MAX_LAYERS = 2048
DEFAULTS = {"batch": 1, "seq": 512}


@dataclass(frozen=True)
class Architecture:
    """Models of an architecture with extents bound.

    Attributes:
        phases: `prefill` and `decode`, or `forward`.
        bindings: the extents they were made with.
    """

    name: str
    phases: Mapping[str, Model]
    bindings: Mapping[str, int]


def read(path: Path, bind: Mapping[str, int]) -> Architecture:
    """Trace the architecture a `config.json` describes.

    Args:
        bind: `batch`, `seq` (tokens of a prompt or text), `past` (tokens in the cache when decoding; `seq` by default)
            and `image` (pixels of an edge) where the architecture has them.

    Raises:
        UsageError: torch or transformers is not installed, or a name in `bind` means nothing here.
        InputError: not the configuration of an architecture transformers knows, or its forward pass looks at data.
    """
    torch, transformers = _packages()
    config = _config(transformers, path)
    try:
        module = _module(torch, transformers, config)
        run = _Run(torch, module, config, bind)
        phases = run.phases()
    except (InputError, UsageError):
        raise
    except Exception as error:  # arbitrary modelling code on an arbitrary configuration
        raise InputError(f"{path}: {config.model_type} cannot be traced ({_line(error)})") from None
    return Architecture(type(module).__name__, phases, run.bindings)


def _packages() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError:
        raise UsageError("a config.json needs torch and transformers: pip install 'eopt[hf]'") from None
    transformers.logging.set_verbosity_error()
    engine.register()
    return torch, transformers


def _config(transformers: Any, path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; that is no model configuration")
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise InputError(f"{path}: not JSON") from None
    kind = document.get("model_type") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise InputError(f"{path}: model_type {kind!r} is none of the architectures of transformers")
    document.pop("auto_map", None)  # names code to download and run
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(document)
    except Exception as error:  # validation differs by architecture
        raise InputError(f"{path}: {kind} refuses this configuration ({_line(error)})") from None
    if (getattr(config, "num_hidden_layers", 0) or 0) > MAX_LAYERS:
        raise InputError(f"{path}: {config.num_hidden_layers} layers are more than {MAX_LAYERS}")
    return config


def _module(torch: Any, transformers: Any, config: Any) -> Any:
    """The class the configuration names if it is one of transformers' own, else the plain one of its kind."""
    named = next(iter(config.architectures or ()), "")
    cls = getattr(transformers, named, None) if named.isidentifier() else None
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    options = {"dtype": dtype, "attn_implementation": engine.NAME}
    known = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)
    known = known and getattr(cls, "config_class", None) is type(config)
    if hasattr(config, "num_local_experts") or hasattr(config, "num_experts") or hasattr(config, "n_routed_experts"):
        options["experts_implementation"] = engine.NAME
    with torch.device("meta"):
        try:
            return _built(transformers, cls if known else None, config, options).eval()
        except (ValueError, TypeError):  # this class brings its own attention or experts
            return _built(transformers, cls if known else None, config, {"dtype": dtype}).eval()


def _built(transformers: Any, cls: Any, config: Any, options: Mapping[str, Any]) -> Any:
    return cls._from_config(config, **options) if cls else transformers.AutoModel.from_config(config, **options)


class _Run:
    """One module on meta tensors, run once for each phase."""

    def __init__(self, torch: Any, module: Any, config: Any, bind: Mapping[str, int]) -> None:
        self.torch, self.module, self.config = torch, module, config
        self.generates = module.can_generate()
        text = "input_ids" in self._accepted()
        known = {"batch"} | ({"seq"} if text or self._sound() else set()) | ({"past"} if self.generates else set())
        known |= {"image"} if "pixel_values" in self._accepted() else set()
        for name in bind:
            if name not in known:
                raise UsageError(f"--bind {name}: {type(module).__name__} has {', '.join(sorted(known))}")
        usual = {**DEFAULTS, "seq": min(DEFAULTS["seq"], self._positions())}
        self.bindings: dict[str, int] = {
            name: bind.get(name, usual[name]) for name in ("batch", "seq") if name in known
        }
        if self.generates:
            self.bindings["past"] = bind.get("past", self.bindings.get("seq", 1))
        if "image" in known:
            self.bindings["image"] = bind.get("image", self._edge())

    def phases(self) -> dict[str, Model]:
        """Models by phase."""
        if not self.generates:
            return {"forward": self._recorded(self._inputs(self.bindings.get("seq", 1)), {})[0]}
        prefill, _ = self._recorded(self._inputs(self.bindings["seq"]), {"use_cache": True})
        inputs, state = self._decoding()
        return {"prefill": prefill, "decode": self._recorded(inputs, state)[0]}

    def _recorded(self, inputs: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Model, Any]:
        recorder = Recorder(self.torch, self.module, {**inputs, **_cached(self.torch, state)})
        with recorder.recording(), engine.recorded(recorder):
            result = self.module(**inputs, **state, return_dict=True)
        return recorder.model(_first_tensors(self.torch, result)), result

    # -- inputs

    def _accepted(self) -> set[str]:
        import inspect

        return set(inspect.signature(self.module.forward).parameters)

    def _sound(self) -> bool:
        return self.module.main_input_name in ("input_features", "input_values")

    def _positions(self) -> int:
        config = getattr(self.config, "text_config", self.config)
        return int(getattr(config, "max_position_embeddings", None) or DEFAULTS["seq"])

    def _edge(self) -> int:
        for config in (self.config, getattr(self.config, "vision_config", None)):
            size = getattr(config, "image_size", None)
            if size:
                return int(size[0] if isinstance(size, list | tuple) else size)
        return 224

    def _inputs(self, tokens: int) -> dict[str, Any]:
        """Meta tensors for everything the forward pass needs."""
        accepted, main = self._accepted(), self.module.main_input_name
        inputs: dict[str, Any] = {}
        batch = self.bindings["batch"]
        if main == "input_features":
            frames = 2 * getattr(self.config, "max_source_positions", tokens // 2)
            inputs[main] = self._empty(batch, getattr(self.config, "num_mel_bins", 80), frames)
        elif main == "input_values":
            inputs[main] = self._empty(batch, tokens)
        elif "input_ids" in accepted:
            inputs["input_ids"] = self._tokens(batch, tokens)
        if "pixel_values" in accepted and (main == "pixel_values" or hasattr(self.config, "projection_dim")):
            inputs["pixel_values"] = self._empty(
                batch, self._channels(), self.bindings["image"], self.bindings["image"]
            )
        if self.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = self._tokens(batch, tokens if not self.generates else 1)
        return inputs

    def _decoding(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """One new token, and what a run over `past` tokens left behind."""
        batch, past = self.bindings["batch"], self.bindings["past"]
        before = self._inputs(self.bindings["seq"] if self.config.is_encoder_decoder else past)
        if self.config.is_encoder_decoder:
            before["decoder_input_ids"] = self._tokens(batch, past)
        with self.torch.no_grad():
            result = self.module(**before, use_cache=True, return_dict=True)
        token = self._tokens(batch, 1)
        state = {"past_key_values": result.past_key_values, "use_cache": True}
        if not self.config.is_encoder_decoder:
            return {"input_ids": token}, state
        from transformers.modeling_outputs import BaseModelOutput

        encoded = BaseModelOutput(last_hidden_state=result.encoder_last_hidden_state)
        return {"decoder_input_ids": token}, {**state, "encoder_outputs": encoded}

    def _channels(self) -> int:
        vision = getattr(self.config, "vision_config", self.config)
        return int(getattr(vision, "num_channels", 3))

    def _empty(self, *shape: int) -> Any:
        return self.torch.empty(shape, dtype=self.module.dtype, device="meta")

    def _tokens(self, batch: int, count: int) -> Any:
        return self.torch.empty((batch, count), dtype=self.torch.long, device="meta")


def _cached(torch: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors a decoding step is given besides its token: keys and values by layer, what the encoder made."""
    cache = state.get("past_key_values")
    found: dict[str, Any] = {}
    for side in ("self_attention_cache", "cross_attention_cache", ""):
        part = getattr(cache, side, None) if side else cache
        for number, layer in enumerate(getattr(part, "layers", ())):
            for name in ("keys", "values", "conv_states", "recurrent_states"):
                tensor = getattr(layer, name, None)
                if isinstance(tensor, torch.Tensor) and tensor.numel():
                    found[f"{side + '.' if side else 'past.'}{number}.{name}"] = tensor
    encoded = state.get("encoder_outputs")
    return found | ({"encoder_outputs": encoded.last_hidden_state} if encoded is not None else {})


def _first_tensors(torch: Any, result: Any) -> dict[str, Any]:
    """The logits or states, not the cache."""
    tensors = {name: item for name, item in result.items() if isinstance(item, torch.Tensor)}
    return dict([next(iter(tensors.items()))])


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
