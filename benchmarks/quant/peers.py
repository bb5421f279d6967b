"""Other quantisers, each from a float32 ONNX file and calibration samples to a file.

python benchmarks/quant/peers.py 'ort static u8' MODEL CALIBRATION OUT     makes OUT; needs that tool, and not eopt

Everyone calibrates on the same samples. onnxruntime's quantisers get what its documentation asks for: a model out of
`quant_pre_process`, QDQ, and on x86 uint8 activations (`u8`; its default is int8); weights have a scale per channel if
the name does not say otherwise. NNCF and neural-compressor (2.6, with onnx 1.16 and onnxruntime 1.18; 3.x has no ONNX)
do not go into the environment of eopt: give an interpreter that has them, `--peers-python nncf=VENV/bin/python ...`.
Olive 0.13 drives onnxruntime's quantisers; its file of `examples/vit` computes bit for bit what onnxruntime's does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Feed = Mapping[str, np.ndarray[Any, Any]]
Make = Callable[[Path, Sequence[Feed], Path], None]

BATCH = 8  # samples in a run of calibration
BLOCK = 32  # weights along the sum that share a scale, in int4
PRODUCTS = ("Conv", "Gemm", "MatMul")
LABELS = "labels"


@dataclass(frozen=True)
class Peer:
    """A quantiser with its settings.

    Attributes:
        format: whom it is compared with: int8 (static), dynamic (int8 as well), int4 (weights alone), float16.
        make: from a model and calibration batches to a file.
        package: what it lives in, where that is not the environment of eopt.
    """

    format: str
    make: Make
    package: str = ""


def batches(calibration: Path) -> list[Feed]:
    """The samples of a file, without labels."""
    with np.load(calibration, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name != LABELS}
    count = len(next(iter(arrays.values())))
    return [{name: array[at : at + BATCH] for name, array in arrays.items()} for at in range(0, count, BATCH)]


class Reader:
    """Batches as onnxruntime's and neural-compressor's calibration readers give them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.feeds = feeds
        self.rewind()

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)

    def get_next(self) -> Feed | None:
        return next(self.left, None)

    def rewind(self) -> None:
        self.left = iter(self.feeds)


def _prepared(model: Path, folder: str) -> str:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = f"{folder}/prepared.onnx"
    quant_pre_process(str(model), prepared, skip_symbolic_shape=True)
    return prepared


def _static(
    model: Path,
    feeds: Sequence[Feed],
    out: Path,
    activation: str = "QUInt8",
    method: str = "MinMax",
    per_channel: bool = True,
    ops: Sequence[str] = (),
    by_hand: bool = False,
) -> None:
    """by_hand: leave out products of two activations, and let matrix products write float."""
    from onnxruntime import quantization as ort

    with TemporaryDirectory() as folder:
        prepared = _prepared(model, folder)
        ort.quantize_static(
            prepared,
            str(out),
            Reader(feeds),
            op_types_to_quantize=list(ops) or None,
            nodes_to_exclude=_unweighted(prepared) if by_hand else [],
            per_channel=per_channel,
            activation_type=ort.QuantType[activation],
            calibrate_method=ort.CalibrationMethod[method],
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]} if by_hand else {},
        )


def _unweighted(model: str) -> list[str]:
    import onnx

    graph = onnx.load(model).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in PRODUCTS and not weights.intersection(node.input)]


def _dynamic(model: Path, feeds: Sequence[Feed], out: Path, per_channel: bool, weight: str = "QInt8") -> None:
    from onnxruntime import quantization as ort

    with TemporaryDirectory() as folder:
        ort.quantize_dynamic(
            _prepared(model, folder), str(out), per_channel=per_channel, weight_type=ort.QuantType[weight]
        )


def _int4(model: Path, feeds: Sequence[Feed], out: Path, method: str, accuracy_level: int = 4) -> None:
    """accuracy_level: 4 multiplies int8 activations, quantised as they come; 0 float32 ones."""
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    configs = {
        "blocks": lambda: nbits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, accuracy_level=accuracy_level),
        "rtn": nbits.RTNWeightOnlyQuantConfig,
        "k-quant": nbits.KQuantWeightOnlyQuantConfig,
        "hqq": lambda: nbits.HQQWeightOnlyQuantConfig(block_size=BLOCK),
        "gptq": lambda: nbits.GPTQWeightOnlyQuantConfig(Reader(feeds), block_size=BLOCK),
    }
    with TemporaryDirectory() as folder:
        read = onnx.load(_prepared(model, folder))
    quantiser = nbits.MatMulNBitsQuantizer(
        read, block_size=BLOCK, accuracy_level=accuracy_level, algo_config=configs[method]()
    )
    quantiser.process()
    onnx.save(quantiser.model.model, out)


def _float16(model: Path, feeds: Sequence[Feed], out: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(str(model), keep_io_types=True), out)


def _nncf(model: Path, feeds: Sequence[Feed], out: Path, transformer: bool = False) -> None:
    """transformer: its settings for them, SmoothQuant among them."""
    import nncf
    import onnx

    kind = nncf.ModelType.TRANSFORMER if transformer else None
    onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(feeds), subset_size=len(feeds), model_type=kind), out)


def _neural_compressor(model: Path, feeds: Sequence[Feed], out: Path) -> None:
    """Without inferred shapes: it transposes weights of `Gemm` and then trips over the old ones."""
    import onnx
    from neural_compressor import PostTrainingQuantConfig, quantization

    class Loader:
        batch_size = BATCH

        def __iter__(self) -> Iterator[tuple[Feed, None]]:
            return ((feed, None) for feed in feeds)

    read = onnx.load(model)
    del read.graph.value_info[:]
    config = PostTrainingQuantConfig(calibration_sampling_size=[len(feeds) * BATCH], quant_format="QDQ")
    quantization.fit(read, config, calib_dataloader=Loader()).save(str(out))


PEERS: Mapping[str, Peer] = {
    "ort static": Peer("int8", partial(_static, activation="QInt8")),
    "ort static u8": Peer("int8", _static),
    "ort static u8 per tensor": Peer("int8", partial(_static, per_channel=False)),
    "ort static u8 entropy": Peer("int8", partial(_static, method="Entropy")),
    "ort static u8 percentile": Peer("int8", partial(_static, method="Percentile")),
    "ort static u8 products": Peer("int8", partial(_static, ops=PRODUCTS)),
    "ort static u8 by hand": Peer("int8", partial(_static, ops=PRODUCTS, by_hand=True)),
    "ort dynamic": Peer("dynamic", partial(_dynamic, per_channel=False)),
    "ort dynamic per channel": Peer("dynamic", partial(_dynamic, per_channel=True)),
    "ort dynamic u8 weights": Peer("dynamic", partial(_dynamic, per_channel=False, weight="QUInt8")),
    "ort int4 blocks": Peer("int4", partial(_int4, method="blocks")),
    "ort int4 blocks float": Peer("int4", partial(_int4, method="blocks", accuracy_level=0)),
    "ort int4 rtn": Peer("int4", partial(_int4, method="rtn")),
    "ort int4 k-quant": Peer("int4", partial(_int4, method="k-quant")),
    "ort int4 hqq": Peer("int4", partial(_int4, method="hqq")),
    "ort int4 gptq": Peer("int4", partial(_int4, method="gptq")),
    "ort float16": Peer("float16", _float16),
    "nncf": Peer("int8", _nncf, "nncf"),
    "nncf transformer": Peer("int8", partial(_nncf, transformer=True), "nncf"),
    "neural-compressor": Peer("int8", _neural_compressor, "neural-compressor"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    for name in ("model", "calibration", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    PEERS[options.peer].make(options.model, batches(options.calibration), options.out)


if __name__ == "__main__":
    main()
