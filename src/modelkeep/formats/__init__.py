"""Forms that a version takes outside a store: one file for each, with what reads and what writes it."""
