"""Servers under load: what ``benchmarks.serving`` is made of."""
