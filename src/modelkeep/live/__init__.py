"""A model in memory: captured, restored, audited and replayed. Only these rooms know Keras and its backends."""
