"""The microcontroller stage: the C model for chips without an operating system."""
