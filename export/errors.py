"""What can keep a module from becoming a file."""


class ExportError(ValueError):
    """A module that cannot be exported as asked; the message names the place in the module and what to do."""


class UnsupportedError(ExportError):
    """An operator or control flow that the table of blocks cannot express; ``torch.onnx`` may, unproved."""
