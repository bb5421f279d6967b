"""Small text files users hand in."""

from __future__ import annotations

from pathlib import Path

from eopt.ir.errors import InputError

MAX_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """Read a text file of at most a megabyte.

    Raises:
        InputError: missing, too large or not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes; that is no text file written by hand")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
