//! Providers that refuse, hang, break and restart, and callers that do not notice.
//!
//! Short twins of the long runs in the bench report; [`TestMesh::faults`] plays what goes wrong.
//!
//! [`TestMesh::faults`]: aegis_testing::TestMesh::faults

mod beside;
mod crowded;
mod failing;
mod hanging;
mod hops;
mod load;
mod refusing;
mod restarting;
