"""What can keep a module from becoming a file."""

from typing import Any


class ExportError(ValueError):
    """A module that cannot be exported as asked; the message names the place in the module and what to do."""


class UnsupportedError(ExportError):
    """Something that no file can hold: an operator that is not in the table, control flow that depends on data."""


class TargetError(ValueError):
    """A package that cannot be made as asked; the message says what the server or the file does not allow."""


class ProofError(ValueError):
    """A file that is not proved to compute what its module computes, or a proof that cannot be made or read.

    ``report`` is the ``ParityReport`` that says why, where there is one.
    """

    def __init__(self, message: str, report: Any = None):
        super().__init__(message)
        self.report = report
