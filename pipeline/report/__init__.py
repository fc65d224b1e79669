"""The report stage: everything that was measured on one model, on one page and in a model card."""
