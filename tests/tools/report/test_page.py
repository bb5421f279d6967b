"""The page in a real browser: it draws, sorts and zooms without an error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from eopt.ir import onnx_io
from eopt.tools.compile import compile_model
from eopt.tools.report import data, html

CNN = Path(__file__).parents[3] / "examples/cnn/model.onnx"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=3000",
]  # fmt: skip

PROBE = """
<script>
const seen = [];
addEventListener("error", event => seen.push(event.message));
addEventListener("load", () => {
  const energies = () => [...document.querySelectorAll("#ops tbody tr")].map(row => row.cells[2].textContent);
  const before = energies();
  [...document.querySelectorAll("#ops th")].find(cell => cell.textContent === "operator").click();
  const sorted = energies();
  const cells = document.querySelectorAll(".cell").length;
  [...document.querySelectorAll(".cell")].find(cell => cell.textContent === "stage1").click();
  document.querySelector("#toggle button").click();
  const facts = { errors: seen, rows: before.length, cells, changed: before.join() !== sorted.join(),
    ordered: sorted.join() === [...sorted].sort().join(),
    side: document.querySelector("#toggle [aria-pressed=true]").textContent };
  document.body.dataset.facts = JSON.stringify(facts);
});
</script>
"""


@pytest.mark.slow
def test_the_page_works_in_a_browser(tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    result = compile_model(onnx_io.read(CNN), "simplify,fuse", target="nvidia-h100-sxm", batch=64)
    report = data.compile_report(result.compiled, str(result.pipeline), result.situation, "cnn")
    page = tmp_path / "page.html"
    page.write_text(html.render(report).replace("</head>", PROBE + "</head>"))
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    facts = dom.partition('data-facts="')[2].partition('"')[0].replace("&quot;", '"')
    assert '"errors":[]' in facts
    assert '"changed":true' in facts
    assert '"ordered":true' in facts
    assert '"side":"before"' in facts
