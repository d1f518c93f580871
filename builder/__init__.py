"""Specs of dense networks, and the trainable ``torch.nn`` modules that they describe.

The public names are listed in ``__init__.pyi``; each is imported on first use, so reading a spec never imports torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
