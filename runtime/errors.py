"""What can go wrong when a file is run."""


class ProviderError(RuntimeError):
    """The execution provider that was asked for cannot be had on this machine; the message says what is missing."""


class InputError(ValueError):
    """Data that the model cannot take: its shape, dtype, columns or values."""


class ModelError(ValueError):
    """A file that is not a model that can be run here: missing, damaged, or not ONNX."""


class OutputError(OSError):
    """A result that could not be written; what stood under the name before is still there, whole."""


class MissingPackageError(ImportError):
    """A package that an extra brings is not installed; the message has the install line."""


class ClusterError(RuntimeError):
    """A cluster that cannot be reached, has not what was asked for, or lost its workers too often."""


class UnreachableError(RuntimeError):
    """A server that cannot be asked: not there, not trusted, or it wants a token that it was not given."""
