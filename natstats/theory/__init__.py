"""Why the exponents are what they are: theory beside measurement, and the account of a network."""
