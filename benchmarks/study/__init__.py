"""The readout study: what is run, what is measured of each run, and the tables and curves that come of it."""
