//! What metrics there are, where they are told of, and that none grows with the data.
