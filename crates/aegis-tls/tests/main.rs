//! Tests of aegis-tls through its public API, one module per story.
