"""Before/after files of rewrites: `PASSES` on the model before gives exactly the model after, and computes the same.

A file holds `# passes: LIST`, then a model, then `---` and the model expected. `pytest --update-golden` writes the
second part; look at the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from eopt.backends import data
from eopt.backends.ort import OrtRunner
from eopt.ir import text
from eopt.ir.analysis import index_limits
from eopt.ir.text_parse import loads
from eopt.passes.base import Context
from eopt.passes.contract import Exact
from eopt.passes.pipeline import Pipeline

FOLDER = Path(__file__).parent
CASES = sorted(FOLDER.glob("*.eopt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_rewrite(path: Path, update_golden: bool):
    head, _, expected = path.read_text().partition("---\n")
    passes = head.splitlines()[0].removeprefix("# passes: ")
    before = loads(head)
    after = Pipeline.parse(passes).run(before, Context(OrtRunner())).model
    if update_golden:
        path.write_text(f"{head}---\n{text.dumps(after)}")
    assert text.dumps(after) == expected or update_golden
    batches = list(data.synthetic(before.feeds, index_limits(before), seed=0).batches(before.feeds))
    verdict = Exact().check(list(OrtRunner().run(before, batches)), list(OrtRunner().run(after, batches)))
    assert verdict.holds, str(verdict)
