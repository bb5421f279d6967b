"""Hostile files and texts end in an `EoptError` or in a sound model; nothing hangs, escapes or explodes."""

from __future__ import annotations

import base64
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper

sys.path.append(str(Path(__file__).parent))

import corpus
import hostile
import target

from eopt.ir import onnx_io, onnx_out, text_parse
from eopt.ir.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)
CI = settings(max_examples=100, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
MEMORY_BYTES = 6 << 30


@pytest.fixture(scope="module", autouse=True)
def _bounded() -> Iterator[None]:
    """What needs more memory than this fails; the limit includes what onnxruntime has mapped."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", target.KINDS)
def test_no_input_ends_in_anything_else(kind, folder):
    @CI
    @given(SEEDS)
    def one(seed: int) -> None:
        target.attempt(target.make(kind, seed, corpus.encoded(), corpus.printed()), folder)

    one()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("content", "refusal"), [pytest.param(*case[1:], id=case[0]) for case in hostile.cases()])
def test_models_made_to_hurt(content, refusal, folder):
    outcome = target.attempt(content, folder)
    assert refusal in outcome
    assert bool(refusal) == bool(outcome), outcome
    assert len(outcome) < 500


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("levels", "accepted"), [(20, True), (40, False), (3000, False)])
def test_a_message_in_memory_is_as_deep_as_can_be_written(levels, accepted):
    model = ModelProto(opset_import=hostile.OPSETS)
    inner = model.graph
    for _ in range(levels):
        attribute = inner.node.add(op_type="If").attribute.add(name="body", type=AttributeProto.GRAPH)
        inner = attribute.g
    inner.name = "innermost"
    if accepted:
        assert onnx_out.to_proto(onnx_io.from_proto(model)) == model
        return
    with pytest.raises(InputError, match="nested deeper"):
        onnx_io.from_proto(model)


PARTS = st.sampled_from(
    ["..", ".", "", "/", "w.bin", "link", "linked", "dir", "pipe", "~", "\0", "\\", "C:", "é", "a" * 300]
)


@CI
@given(st.lists(PARTS, min_size=1, max_size=5), st.sampled_from(["/", "//", "\\", ""]), st.booleans())
@example(["linked", "secret"], "/", False)
@example(["dir", "..", "..", "secret"], "/", True)
def test_external_data_comes_from_the_folder_of_the_model(tmp_path_factory, parts, separator, nested):
    here = _model_folder(tmp_path_factory)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=separator.join(parts))
    held = [] if nested else [weight]
    nodes = [helper.make_node("Constant", [], ["w"], value=weight)] if nested else []
    port = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])]
    model = helper.make_model(helper.make_graph(nodes, "g", [], port, held), opset_imports=hostile.OPSETS[:1])
    (here / "m.onnx").write_bytes(model.SerializeToString())
    try:
        read = onnx_io.read(here / "m.onnx")
    except InputError as error:
        assert "external data" in str(error)
        return
    assert read.constant("w").tobytes() == b"i" * 16, "the file inside, and neither the secret nor a link to it"


def _model_folder(factory: pytest.TempPathFactory) -> Path:
    outside = factory.getbasetemp() / "escape"
    here = outside / "model"
    if not here.is_dir():
        (here / "dir").mkdir(parents=True)
        (outside / "secret").write_bytes(b"s" * 16)
        (here / "link").symlink_to(outside / "secret")
        (here / "linked").symlink_to(outside)
        os.mkfifo(here / "pipe")
        for inside in (here / "w.bin", here / "dir" / "w.bin"):
            inside.write_bytes(b"i" * 16)
    return here


def test_a_text_cannot_name_a_file():
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="/etc/passwd")
    attribute = helper.make_attribute("value", weight)
    line = f'w: float32[4] = Constant() {{value: proto("{base64.b64encode(attribute.SerializeToString()).decode()}")}}'
    with pytest.raises(InputError, match="cannot be found"):
        text_parse.loads(f"{line}\noutput w: float32[4]")


SPY = """
import os, sys
sys.path.append(sys.argv[1])
import corpus, hostile, target
from pathlib import Path
folder, seen = Path(sys.argv[2]), []
target.attempt(corpus.encoded()[0], folder), target.attempt(corpus.printed()[0], folder)  # imports what is lazy
WATCHED = ("subprocess", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "socket", "ctypes", "pickle",
           "marshal", "exec", "import", "webbrowser", "shutil")
def spy(event, arguments):
    if event.startswith(WATCHED):
        seen.append((event, arguments))
    if event == "open" and isinstance(arguments[0], str | bytes | Path):  # a number is a file that is open already
        if not os.fsdecode(arguments[0]).startswith((str(folder), "/proc/self/statm")):
            seen.append((event, arguments))
sys.addaudithook(spy)
for kind in target.KINDS:
    for seed in range(60):
        target.attempt(target.make(kind, seed, corpus.encoded(), corpus.printed()), folder)
for _, content, _ in hostile.cases():
    target.attempt(content, folder)
print(sorted({str(item)[:200] for item in seen}))
"""


def test_nothing_is_executed_and_nothing_else_is_opened(tmp_path):
    command = [sys.executable, "-c", SPY, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
