"""The command line: one file per command, which only parses and calls. Installed as `fsagn_onnx.cli`."""
