"""The conductor: what happens on the development machine, stage by stage."""
