"""From the log of something that broke to what broke it: read, match, rank, explain."""
