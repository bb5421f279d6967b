"""The errors eopt raises on purpose: one line naming the file, the node and the fix, and a documented exit code."""

from __future__ import annotations

from typing import ClassVar


class EoptError(Exception):
    """Base of every error a user can cause; anything else that escapes is a bug (exit code 1)."""

    exit_code: ClassVar[int] = 1


class UsageError(EoptError):
    """A wrong command line, option, pass or target name."""

    exit_code: ClassVar[int] = 2


class InputError(EoptError):
    """A model, sheet or data file that cannot be used as it is."""

    exit_code: ClassVar[int] = 3


class ContractError(EoptError):
    """A numeric contract or accuracy bound does not hold."""

    exit_code: ClassVar[int] = 4


class OutputError(EoptError):
    """An output that cannot be written; whatever stood there before is untouched."""

    exit_code: ClassVar[int] = 3
