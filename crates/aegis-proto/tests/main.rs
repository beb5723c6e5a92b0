//! What the descriptors say: the facts that nodes of other languages rely on.

mod wire;
