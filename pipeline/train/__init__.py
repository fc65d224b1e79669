"""The train stage: recipe and data in, `lenet5.keras` and `train.json` out."""
