//! Tests of aegis-topology through its public API, one module per story.
