"""One module a data set: where it comes from and how its table is read."""
