"""Trained networks as program files that run without this package: ONNX, torch.export, TorchScript."""
