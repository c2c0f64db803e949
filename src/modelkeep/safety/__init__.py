"""Whether a foreign file is safe: looked at as bytes, in a process that can do no harm, before anything is built."""
