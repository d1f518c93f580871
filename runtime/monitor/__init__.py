"""A check that is repeated, and what it found last: for a probe and for Prometheus."""
