"""Every error of mlpx, and the exit code of a command that ends with it.

    ValueError
     ├─ builder.SpecError          2  a spec that cannot be read or does not describe a network
     ├─ builder.WeightsError       2  a weights file that is refused, damaged or does not fit
     ├─ builder.RecoveryError      2  a file that no dense network can be read from, or that leaves it open
     ├─ export.ExportError         2  a module that cannot be exported as asked
     │   └─ export.UnsupportedError  2  an operator or control flow that no block expresses
     ├─ export.TargetError         2  a package that a server or a file does not allow
     ├─ export.ProofError          1  a file that is not proved to compute what its module computes
     ├─ runtime.InputError         2  data that the model cannot take
     └─ runtime.ModelError         2  a file that is not a model that can be run
    RuntimeError
     ├─ runtime.ProviderError      3  the execution provider cannot be had on this machine
     ├─ runtime.ClusterError       3  a cluster cannot be reached, or lost its workers too often
     └─ runtime.UnreachableError   3  a server cannot be asked
    OSError
     └─ runtime.OutputError        3  a result could not be written
    ImportError
     └─ runtime.MissingPackageError  3  a package that an extra brings is not installed

Besides, a command exits with 0 when it is done, with 1 when a file is not proved and with 3 after another OSError.
Any other error is a defect of mlpx: its trace is shown, and the code is 70.
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
    UnreachableError,
)

DONE, UNPROVED, WRONG_USE, MACHINE_LACKS, DEFECT = 0, 1, 2, 3, 70

EXIT_CODES: dict[type[Exception], int] = {
    **dict.fromkeys((SpecError, WeightsError, RecoveryError, ExportError, UnsupportedError, TargetError), WRONG_USE),
    **dict.fromkeys((InputError, ModelError), WRONG_USE),
    **dict.fromkeys((ProviderError, ClusterError, UnreachableError, OutputError, MissingPackageError), MACHINE_LACKS),
    ProofError: UNPROVED,
    OSError: MACHINE_LACKS,
    ModuleNotFoundError: DEFECT,
}
"""The exit code for each error that is told to the user in a paragraph: of the first that it is one of."""
