//! Tests of aegis-client through its public API, one module per story.
