"""Export: ONNX, int8 and other precisions, each checked against the model."""
