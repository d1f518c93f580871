"""``python -m mlpx``."""

from mlpx.cli import main

main()
