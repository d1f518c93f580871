"""Dense networks of published packages, as they are written, by mlpx and by ``torch.onnx``; see ``__main__``."""
