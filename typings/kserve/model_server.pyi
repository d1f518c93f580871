from argparse import ArgumentParser
from collections.abc import Sequence

from . import Model

parser: ArgumentParser

class ModelServer:
    def start(self, models: Sequence[Model]) -> None: ...
