"""Every theorem of the library as a claim: a check that could have refuted it and a control that it does refute."""
