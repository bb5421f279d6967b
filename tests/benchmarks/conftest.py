"""Benchmarks are no package of the release: the root is put on the path for them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
