"""Configs of Keras 1 and 2 as Keras 3 reads them: one small rule for each thing that changed."""
