"""`millrace bench`: a load at several concurrencies, watched while it runs, and reported."""
