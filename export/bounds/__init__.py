"""Bounds for every input of a box: how far a float32 runtime may be from the network of a file in real arithmetic."""
