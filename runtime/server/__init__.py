"""The embedded server: the Open Inference Protocol (V2) over REST and gRPC, for one machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
