"""Running an exported file. The public names stand in ``__init__.pyi``; nothing here imports torch, onnx or pandas."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
