"""Scoring of Parquet folders by the workers of a Ray cluster."""
