"""docs/generate_accuracy.py: what there are scores for is written anew, and all else stays."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pd = pytest.importorskip("pandas")

from eopt.costmodel import ablation
from eopt.costmodel.scores import Score

GENERATOR = runpy.run_path(str(Path(__file__).parents[2] / "docs/generate_accuracy.py"))
ABOVE = GENERATOR["ABOVE"]


def score(fold: str, device: str, method: str, mean: float, **more) -> Score:
    fields = {"family": "gemm", "dtype": "float16", "scale": "", "source": "test", "quantity": "latency", "rows": 10}
    return Score(fold=fold, device=device, method=method, mean_ape=mean, median_ape=mean / 2, bias=0.1, tau=0.9,
                 **fields | more)  # fmt: skip


def page(text: str, *scores: Score) -> str:
    return GENERATOR["page"](text, pd.DataFrame([found.to_dict() for found in scores]))


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ")[0]


def test_other_sections_and_the_head_stay():
    before = f"# Accuracy\n\nHand-written.\n\n{ABOVE}\n\n## By family\n\nold\n\n## Back-test\n\nold\n"
    after = page(before, score("as of 2020", "nvidia-h200-sxm", "eopt", 30.0, coverage=0.9, interval_score=1.5))
    assert after.startswith("# Accuracy\n\nHand-written.\n")
    assert section(after, "By family").strip() == "old"
    assert "| 2020 | hopper | 1 | 30 / 15 |" in section(after, "Back-test")
    assert page(after, score("as of 2020", "nvidia-h200-sxm", "eopt", 30.0, coverage=0.9, interval_score=1.5)) == after


def test_single_devices_are_no_part_of_the_means_over_generations():
    generation = score("without hopper", "nvidia-h200-sxm", "eopt", 40.0)
    single = score("without nvidia-h200-sxm", "nvidia-h200-sxm", "eopt", 4.0, sibling="nvidia-h20")
    text = page(ABOVE, generation, single)
    assert "| gemm | 1 | 40 / 20 |" in section(text, "By family")
    assert "nvidia-h200-sxm † |" in section(text, "Single devices left out")
    assert "†" not in section(text, "Latency, from the sheet alone").split("|", 1)[1]


@pytest.mark.parametrize(("mine", "verdict"), [((10.0, 10.0), "better"), ((90.0, 10.0), "not better")])
def test_the_ablation_says_who_wins(mine, verdict):
    names = ("nvidia-t4", "nvidia-h200-sxm")
    rows = [
        score("without some", device, name, mine[place] if name == ablation.SHIPPED else 50.0)
        for place, device in enumerate(names)
        for name in ablation.VARIANTS
    ]
    text = section(page(ABOVE, *rows), "Ablation")
    assert f"For all kinds the embedding as shipped is {verdict} than plain sheet features on most devices" in " ".join(
        text.split()
    )
    assert text.count("\n| ") == len(ablation.VARIANTS) + 1
