"""ONNX files as they are read: operators, constants, and the patterns in which operators stand there."""
