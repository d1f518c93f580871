"""From the folder of a training run, read as data only, to the facts that recover its policy."""
