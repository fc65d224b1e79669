"""Pure converters: (model, samples, path) -> file."""
