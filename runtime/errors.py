"""The errors of running a model file."""


class ProviderError(RuntimeError):
    """The requested execution provider is not available on this machine; the message says what is missing."""


class InputError(ValueError):
    """Data that the model does not accept: its shape, dtype, columns or values."""


class ModelError(ValueError):
    """A file that cannot be run as a model here: missing, damaged, or not ONNX."""


class SignatureError(ValueError):
    """A certificate without a signature by a trusted key."""


class RoundingWarning(UserWarning):
    """Numbers of a table that float32 does not hold were rounded to it."""


class OutputError(OSError):
    """A result that could not be written; an earlier file of that name is still there, unchanged."""


class MissingPackageError(ImportError):
    """An optional package is not installed; the message has the install line."""


class ClusterError(RuntimeError):
    """A cluster that cannot be reached, lacks the requested resources, or lost its workers too often."""


class UnreachableError(RuntimeError):
    """A server that cannot be reached: not there, not trusted, or it requires a token that it was not given."""
