"""The loop's own forward pass: plain calls of torch on buffers that are made once."""
