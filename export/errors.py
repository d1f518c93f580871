"""Errors of exporting, proving and packaging."""

from typing import Any


class ExportError(ValueError):
    """A module cannot be exported as requested; the message says where in the module, and what to do.

    Examples:
        >>> from torch import nn
        >>> from mlpx import publish
        >>> publish(nn.Linear(2, 1), "model.pt", device="cpu")
        Traceback (most recent call last):
        export.errors.ExportError: the file's name ends in .onnx, not 'model.pt'
    """


class UnsupportedError(ExportError):
    """A file cannot hold what the module does: an operator that is not in the table, control flow on data.

    Examples:
        >>> from torch import nn
        >>> from mlpx import export
        >>> export(nn.Conv1d(1, 1, 3), "conv.onnx", input_shape=(1, 8))
        Traceback (most recent call last):
        export.errors.UnsupportedError: ...conv...
    """


class TargetError(ValueError):
    """A package cannot be made as requested; the message says what the server or the file does not allow.

    Examples:
        >>> from mlpx import package
        >>> package("comfort.onnx", "tritn", "folder")
        Traceback (most recent call last):
        export.errors.TargetError: ...triton...
    """


class ProofError(ValueError):
    """A file is not proved to compute what its module computes, or a proof cannot be made or read.

    ``report`` is the ``ParityReport`` that says why, where there is one.

    Examples:
        >>> from mlpx import ProofError, package
        >>> from torch import nn
        >>> from mlpx import export
        >>> export(nn.Linear(2, 2), "unproved.onnx").proved
        False
        >>> package("unproved.onnx", "triton", "unproved", certificate="comfort.parity.json")
        Traceback (most recent call last):
        export.errors.ProofError: ...
    """

    def __init__(self, message: str, report: Any = None):
        super().__init__(message)
        self.report = report
