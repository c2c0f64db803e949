"""For whoever extends modelkeep or builds on it: contract suites for plugs, and stores that fail on purpose.

The suites need ``pytest``; nothing else in modelkeep does.
"""
