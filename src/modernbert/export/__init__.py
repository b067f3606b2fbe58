"""Export: ONNX, int8 and other precisions, checked against the model."""
