"""Export: ONNX, OpenVINO, GGUF and other precisions, each checked against the model."""
