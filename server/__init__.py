"""HTTP in, server-sent events out; knows no torch."""
