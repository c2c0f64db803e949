"""The command line: a file a command, which parses, asks a Keep and answers. Printing has one place, errors another."""
