//! Tests of aegis-node through its public API, one module per story.
