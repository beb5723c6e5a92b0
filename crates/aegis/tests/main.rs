//! Stories of a whole mesh, one module each.
