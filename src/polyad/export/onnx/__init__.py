"""Models as ONNX graphs, run by onnxruntime before they are put in their place."""
