"""Reading ONNX files: operators, constants, and the patterns in which operators occur there."""
