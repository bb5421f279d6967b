"""Fail unless the model's mean latency error, over kinds of operator, is below that of the roofline on the same rows.

python .ci/better_than_roofline.py SCORES.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean

rows = [row for row in json.loads(Path(sys.argv[1]).read_text()) if row["quantity"] == "latency"]
errors = {name: [row["mean_ape"] for row in rows if row["method"] == name] for name in ("eopt", "roofline")}
if not errors["eopt"] or len(errors["eopt"]) != len(errors["roofline"]):
    sys.exit(f"{sys.argv[1]}: no scores of eopt beside the roofline")
mine, roofline = (fmean(found) for found in errors.values())
sys.stdout.write(f"mean error over {len(errors['eopt'])} kinds: eopt {mine:.1f} %, roofline {roofline:.1f} %\n")
sys.exit(mine >= roofline)
