"""Models that ship with the package, and recipes that build ONNX files of real trained networks."""
