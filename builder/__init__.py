"""The builder: what a model is, and how it becomes a trainable ``torch.nn`` module.

The public names stand in ``__init__.pyi``; each is imported on first use, so reading a spec never imports torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
