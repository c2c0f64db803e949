"""From a model in memory to a foreign file: one module for each form."""
