"""From a module as it is called to a ``Graph``."""

from .signature import Signature as Signature
from .tracing import named_inputs as named_inputs
from .tracing import signature_of as signature_of
from .tracing import trace as trace
