"""How tight is it? Every bound of the library beside what it bounds, at a toy's, a paper's and a deployed setting."""
