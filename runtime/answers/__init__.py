"""Whether a file gives the answers that were saved where it was trained. The public names are in ``__init__.pyi``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
