"""Values and seams that every room may use: errors, findings, the machine, processes, paths."""
