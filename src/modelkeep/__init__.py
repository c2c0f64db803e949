"""Keep every trained Keras model: saved whole, checked, versioned, and ready to run anywhere."""

__version__ = "0.1.0"
