"""From the contents of a foreign file to a model in memory: one module for each form that holds one."""
