"""What weights keep in memory."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from eopt.ir import onnx_io, onnx_out
from eopt.ir.weights import WeightStore, weight_of

ROWS = 16  # MiB


def resident_file_bytes() -> int:
    """Bytes of mapped files that this process holds (https://man7.org/linux/man-pages/man5/proc_pid_status.5.html)."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssFile:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("read", [lambda store: store.array("w")[1:].sum(), lambda store: store.digest("w")])
def test_pages_are_given_back_after_reading(tmp_path: Path, read):
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(np.ones((ROWS, 1 << 18), "f"), "w")])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    store = onnx_io.read(tmp_path / "model.onnx").weights
    view = store.array("w")[: ROWS // 2]
    start = resident_file_bytes()
    assert view.sum() == view.size
    # a view holds what it covers, whatever became of the array it is of; the slack is for libraries paged in meanwhile
    assert resident_file_bytes() - start > (ROWS // 2 - 2) << 20
    del view
    read(store)
    assert resident_file_bytes() - start < 2 << 20
    assert store.array("w").sum() == ROWS << 18  # and they are read again when somebody looks


@pytest.mark.parametrize("kind", [ml_dtypes.int4, ml_dtypes.uint4])
def test_sub_byte_arrays_are_kept_packed(kind):
    array = np.arange(33).reshape(3, 11).astype(np.uint8).astype(kind)
    store = WeightStore({"w": weight_of(array)})
    assert len(store["w"].raw()) == store.nbytes("w") == 17
    np.testing.assert_array_equal(store.array("w"), array)
    assert store.digest("w") == WeightStore({"other": weight_of(array.copy())}).digest("other")


def test_sub_byte_weights_go_to_external_data_like_others(tmp_path: Path):
    array = (np.arange(64 * 64) % 15 - 7).reshape(64, 64).astype(ml_dtypes.int4)
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 21]> g (int4[64,64] w) => (int4[64,64] w) { }')
    model = onnx_io.from_proto(proto).with_weights({"w": array})
    onnx_out.write(model, tmp_path / "model.onnx", shard_bytes=1 << 20)
    assert (tmp_path / "model.onnx-00001-of-00001.data").stat().st_size == 64 * 32
    np.testing.assert_array_equal(onnx_io.read(tmp_path / "model.onnx").weights.array("w"), array)
