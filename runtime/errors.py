"""The errors of running a model file."""


class ProviderError(RuntimeError):
    """The requested execution provider is not available on this machine; the message says what is missing.

    Examples:
        >>> from runtime import Machine, choose, this_machine
        >>> without = Machine(distributions=(("onnxruntime", "1.31.1"),), cuda=this_machine(cuda=False).cuda)
        >>> choose("cuda", without)
        Traceback (most recent call last):
        runtime.errors.ProviderError: cuda was requested and is not available: ...
    """


class InputError(ValueError):
    """Data that the model does not accept: its shape, dtype, columns or values.

    Examples:
        >>> import numpy as np
        >>> from mlpx import Session
        >>> Session("comfort.onnx", device="cpu").predict(np.zeros((5, 3), np.float32))
        Traceback (most recent call last):
        runtime.errors.InputError: 'air' expects shape (batch, 2), and got (5, 3)...
    """


class ModelError(ValueError):
    """A file that cannot be run as a model here: missing, damaged, or not ONNX.

    Examples:
        >>> from mlpx import Session
        >>> Session("rows.csv", device="cpu")
        Traceback (most recent call last):
        runtime.errors.ModelError: rows.csv...
    """


class SignatureError(ValueError):
    """A certificate without a signature by a trusted key.

    Examples:
        Continues the example of ``mlpx.sign``:

        >>> from runtime import read_certificate, require_signature
        >>> other = Ed25519PrivateKey.generate().public_key()
        >>> form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        >>> written = Path("other.pub").write_bytes(other.public_bytes(*form))
        >>> require_signature(read_certificate("comfort.parity.json"), ["other.pub"])
        Traceback (most recent call last):
        runtime.errors.SignatureError: ...
    """


class RoundingWarning(UserWarning):
    """Numbers of a table that float32 does not hold were rounded to it."""


class OutputError(OSError):
    """A result that could not be written; an earlier file of that name is still there, unchanged.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import write_whole
        >>> write_whole(Path("rows.csv/scores.csv"), b"")
        Traceback (most recent call last):
        runtime.errors.OutputError: ...a file stands where its folder should be; nothing was changed...
    """


class MissingPackageError(ImportError):
    """An optional package is not installed; the message has the install line.

    Examples:
        >>> from runtime import missing_package
        >>> raise missing_package(ModuleNotFoundError(name="polars"), "reading CSV")
        Traceback (most recent call last):
        runtime.errors.MissingPackageError: ...pip install "mlpx[files]"...
    """


class ClusterError(RuntimeError):
    """A cluster that cannot be reached, lacks the requested resources, or lost its workers too often.

    Examples:
        >>> import polars
        >>> from runtime import score_folder
        >>> polars.read_csv("rows.csv").write_parquet("far.parquet")
        >>> score_folder("comfort.onnx", "far.parquet", "far", address="127.0.0.1:1")
        Traceback (most recent call last):
        runtime.errors.ClusterError: ...
    """


class UnreachableError(RuntimeError):
    """A server that cannot be reached: not there, not trusted, or it requires a token that it was not given.

    Examples:
        >>> from runtime import check_live
        >>> check_live("http://127.0.0.1:1/v2/models/comfort", "comfort.parity.json")
        Traceback (most recent call last):
        runtime.errors.UnreachableError: ...
    """
