//! Tests of aegis-transport through its public API, one module per story.
