"""The bundle stage: what passed parity, packed for the device."""
