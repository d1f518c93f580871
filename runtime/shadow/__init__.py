"""A proxy that answers from one server, asks another one too, and compares: ``mlpx shadow``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
