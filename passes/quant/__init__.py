"""The quant pass: post-training quantisation of convolutions and matrix products, as QDQ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.passes import opset
from eopt.passes.base import Context, Granularity, Outcome, Pass
from eopt.passes.contract import Contract, Sqnr
from eopt.passes.quant import activations, candidates, weights_alone
from eopt.passes.quant.blocks import GROUPS
from eopt.passes.quant.observers import ObserverKind
from eopt.passes.quant.params import PER_AXIS_OPSET
from eopt.passes.quant.scheme import Activation, Format, Place, WeightType
from eopt.passes.quant.weight_only import Form
from eopt.passes.quant.weights_alone import Rounding

FLOAT8_OPSET = 19

QUANTISED = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
     "MatMulNBits"}
)  # fmt: skip


@dataclass(frozen=True)
class Quant(Pass):
    """Quantise constant weights, and activations on grids from calibration or found at run time.

    Attributes:
        format: static, dynamic, weight-only, or several for place=cost to choose from; static by default, and
            weight-only with int4 weights.
        weight: type of weights.
        activation: type of activations on static grids; auto is uint8 on CPUs, symmetric int8 on accelerators.
        observer: how ranges of activations are found.
        percentile: share of values inside the range, in percent, for the percentile observer.
        per_channel: one weight scale per output channel.
        smooth: share of the outliers of activations behind normalisations that weights take over (SmoothQuant), below
            1; 0 leaves them.
        bias_correction: take from biases what rounding the weights adds to the mean of a channel.
        group: weight-only: weights that share a scale, 16 to 256; 0 for all of an output channel.
        zero_points: weight-only: each group has its own, and covers just its values; not every engine takes them.
        rounding: weight-only: to the nearest point (rtn), or making up for earlier errors (gptq); auto is gptq where
            there are samples.
        form: weight-only: standard operators (qdq) or onnxruntime's own product (nbits).
        place: quantise everything, or what is predicted to cost the fewest joules.
        sqnr: least signal to quantisation noise of the outputs, in dB. Noise unrelated to the signal turns a vector by
            cosine = (1 + 10^(-sqnr/10))^(-1/2): 13.8 dB is a cosine of 0.98, and the default leaves near 1 dB for the
            spread between samples.
        ops: operator types to quantise.
        exclude: shell patterns on module paths and operator names to leave in float.
    """

    name: ClassVar[str] = "quant"
    after: ClassVar[tuple[str, ...]] = ("simplify", "fuse")
    granularity: ClassVar[Granularity] = Granularity.REGION
    needs_data: ClassVar[bool] = True

    format: tuple[Format, ...] = ()
    weight: WeightType = WeightType.INT8
    activation: Activation = Activation.AUTO
    observer: ObserverKind = ObserverKind.MSE
    percentile: float = 99.999
    per_channel: bool = True
    smooth: float = 0.5
    bias_correction: bool = False
    group: int = 32
    zero_points: bool = False
    rounding: Rounding = Rounding.AUTO
    form: Form = Form.QDQ
    place: Place = Place.ALL
    sqnr: float = 13.0
    ops: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise UsageError(f"quant{{percentile={self.percentile:g}}}: give a share in percent above 50, up to 100")
        if not 0 <= self.smooth < 1:
            raise UsageError(f"quant{{smooth={self.smooth:g}}}: give a share of at least 0 and below 1")
        if self.group and self.group not in GROUPS:
            raise UsageError(f"quant{{group={self.group}}}: choose from {', '.join(map(str, GROUPS))}, or 0 for none")
        for op in self.ops:
            if op not in candidates.READERS:
                raise UsageError(f"quant{{ops={op}}}: choose from {', '.join(candidates.READERS)}")
        self._check_formats()

    def _check_formats(self) -> None:
        alone = Format.WEIGHT_ONLY in self.formats
        if self.weight == WeightType.INT4 and not alone:
            raise UsageError(
                "quant{weight=int4}: no kernel multiplies int4 weights with 8-bit activations; use weight-only"
            )
        if self.weight == WeightType.FLOAT8 and self.formats != (Format.STATIC,):
            raise UsageError("quant{weight=float8}: only the static format has float8")
        if alone and (len(self.formats) > 1 or self.place == Place.COST):
            raise UsageError("quant{format=weight-only}: takes no other format beside it, and no place=cost")
        if len(self.formats) > 1 and self.place != Place.COST:
            raise UsageError(
                f"quant{{format=[{','.join(self.formats)}]}}: several formats are chosen from with place=cost"
            )

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats asked for, each once."""
        usual = Format.WEIGHT_ONLY if self.weight == WeightType.INT4 else Format.STATIC
        return tuple(dict.fromkeys(self.format)) or (usual,)

    @property
    def asks_for_data(self) -> bool:
        """Static grids, corrected biases and GPTQ come from samples; smoothing is left out where there are none."""
        if Format.WEIGHT_ONLY in self.formats:
            return self.rounding == Rounding.GPTQ
        return Format.STATIC in self.formats or self.bias_correction

    @property
    def contract(self) -> Contract:
        """Signal to quantisation noise on every output."""
        return Sqnr(self.sqnr)

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`.

        Raises:
            UsageError: no calibration samples where they are needed, types the target has no kernels for, or place=cost
                without a target.
            InputError: operators to quantise in a model of too old an operator set.
        """
        if context.data is None and self.asks_for_data:
            raise UsageError("pass 'quant' needs calibration samples; give them with --data")
        if any(op.op in QUANTISED for op in model.leaves()):
            return Outcome(model, notes=("the model is quantised already; quant left it as it is",))
        if Format.WEIGHT_ONLY in self.formats:
            return weights_alone.quantised(self, model, context)
        return activations.quantised(self, self._lifted(model), context)

    def _lifted(self, model: Model) -> Model:
        """The model at an operator set that has the formats."""
        if self.weight == WeightType.FLOAT8:
            lifted, reason = opset.lift(model, FLOAT8_OPSET)
            if reason:
                raise InputError(f"quant{{weight=float8}} needs opset {FLOAT8_OPSET}: {reason}")
            return lifted
        version = model.opsets.get("", 0)
        if version < PER_AXIS_OPSET and candidates.find(model, self.ops, self.exclude)[0]:
            raise InputError(
                f"opset {version}: quant needs {PER_AXIS_OPSET} or later; "
                "convert the model with onnx.version_converter.convert_version"
            )
        return model
