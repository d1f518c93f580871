"""Rows in and results out: arrays, tables and files."""
