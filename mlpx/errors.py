"""Every error of mlpx, and the exit code of a command that ends with it.

    ValueError
     ├─ builder.SpecError            2  a spec that cannot be read or does not describe a network
     ├─ builder.WeightsError         2  a weights file that is refused, damaged or does not fit the network
     ├─ builder.RecoveryError        2  a file that no dense network can be read from, or only an ambiguous one
     ├─ export.ExportError           2  a module that cannot be exported as requested
     │   └─ export.UnsupportedError  2  an operator or control flow that has no counterpart in the file
     ├─ export.TargetError           2  a package that the server or the file does not allow
     ├─ export.ProofError            1  a file that is not proved to compute what its module computes
     ├─ runtime.SignatureError       1  a certificate that is not signed with a trusted key
     ├─ runtime.InputError           2  data that the model cannot take
     └─ runtime.ModelError           2  a file that is not a model that can be run
    RuntimeError
     ├─ runtime.ProviderError        3  an execution provider that cannot be used on this machine
     ├─ runtime.ClusterError         3  a cluster that cannot be reached, or that lost its workers too often
     └─ runtime.UnreachableError     3  a server that cannot be asked
    OSError
     └─ runtime.OutputError          3  a result that could not be written
    ImportError
     └─ runtime.MissingPackageError  3  a package of an extra that is not installed

A command that succeeds exits with 0, and one that ends with another OSError with 3. One that is interrupted exits with
130, and one whose output nobody reads any more (``mlpx inspect FILE | head -1``) quietly with 141; files that it had to
write are written by then. A command that proves something runs in a second process: where code of the module ends or
crashes that one, the exit code is 2. Any other error is a defect of mlpx: its traceback is shown, and the exit code
is 70.
"""

from builder.errors import RecoveryError, SpecError, WeightsError
from export.errors import ExportError, ProofError, TargetError, UnsupportedError
from runtime.errors import (
    ClusterError,
    InputError,
    MissingPackageError,
    ModelError,
    OutputError,
    ProviderError,
    SignatureError,
    UnreachableError,
)

from .exit_codes import DEFECT, MACHINE_LACKS, UNPROVED, WRONG_USE

EXIT_CODES: dict[type[Exception], int] = {
    **dict.fromkeys((SpecError, WeightsError, RecoveryError, ExportError, UnsupportedError, TargetError), WRONG_USE),
    **dict.fromkeys((InputError, ModelError), WRONG_USE),
    **dict.fromkeys((ProviderError, ClusterError, UnreachableError, OutputError, MissingPackageError), MACHINE_LACKS),
    **dict.fromkeys((ProofError, SignatureError), UNPROVED),
    OSError: MACHINE_LACKS,
    ModuleNotFoundError: DEFECT,
}
"""The exit code for each error that a command reports as a paragraph; the first class that fits counts."""
