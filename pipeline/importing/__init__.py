"""The import stage: data as people have it, brought to the form that the pipeline reads."""
