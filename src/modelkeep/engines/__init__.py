"""What runs a form that is no Keras model in memory: one module for each runtime, imported when it is used."""
