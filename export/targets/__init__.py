"""A folder for each inference server: a file per target, each a pure function from a deployment to its files."""
