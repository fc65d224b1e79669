"""The parity stage: every artifact on every runtime against the float model, on all test images."""
