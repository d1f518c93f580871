"""What a model file says of itself: its ports, its record, its certificate, the ranges of its inputs."""
