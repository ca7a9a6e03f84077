"""ONNX with MatMulNBits, which onnxruntime and transformers.js load."""
