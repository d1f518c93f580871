"""Errors of exporting, proving and packaging."""

from typing import Any


class ExportError(ValueError):
    """A module cannot be exported as requested; the message says where in the module, and what to do."""


class UnsupportedError(ExportError):
    """A file cannot hold what the module does: an operator that is not in the table, control flow on data."""


class TargetError(ValueError):
    """A package cannot be made as requested; the message says what the server or the file does not allow."""


class ProofError(ValueError):
    """A file is not proved to compute what its module computes, or a proof cannot be made or read.

    ``report`` is the ``ParityReport`` that says why, where there is one.
    """

    def __init__(self, message: str, report: Any = None):
        super().__init__(message)
        self.report = report
