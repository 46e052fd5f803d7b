"""The command line: one file per command, each of which only parses and calls. Installed as `fsagn_onnx.cli`."""
