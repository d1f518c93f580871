"""The example models: a folder each, with spec, weights, training program and held-out rows."""
