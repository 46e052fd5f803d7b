"""Pairs of a real defect and the good board; installed as `fsagn_onnx.models.pcb`, for the demo."""
