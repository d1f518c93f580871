"""The code that packages hold, copied as it is: it runs in servers' environments, which have no mlpx."""
