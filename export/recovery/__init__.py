"""Reading a network back: from a checkpoint or an ONNX file to a spec and its weights; recovering.py alone writes."""
