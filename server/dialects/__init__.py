"""One file a dialect: bodies in, calls and replies out; no HTTP here."""
