"""The bench stage: every artifact on every runtime, timed on this machine."""
