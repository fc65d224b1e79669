"""The pi-test stage: the bundle on emulated Raspberry Pis."""
