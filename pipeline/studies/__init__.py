"""Studies of the model: accuracy over seeds, robustness, photographs, instructions."""
