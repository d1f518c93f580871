"""What a file takes, applies and gives, feature by feature: read from the file alone, and compared with another."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
