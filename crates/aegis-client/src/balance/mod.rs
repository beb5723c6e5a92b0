//! Which provider a call goes to.

mod round_robin;

pub(crate) use round_robin::RoundRobin;
