//! The manual, in the order in which most people need it. All code in it is compiled by our tests,
//! and all that is of aegis is run.
//!
//! | guide | for |
//! |---|---|
//! | [`quickstart`] | a first provider and consumer with a proto of your own, in a quarter of an hour |
//! | [`services`] | defining, registering, calling, authorizing and versioning services |
//! | [`balancing`] | which provider gets a call: load, weights, providers that fail |
//! | [`resilience`] | what is sent again when a provider fails, what never is, and how to read a failure |
//! | [`shutdown`] | restarts and rolling updates without a failed call, under Kubernetes and systemd |
//! | [`performance`] | how to measure a call, what to expect, and what costs |
//! | [`certificates`] | what a certificate has to say, and who issues it |
//! | [`adopting`] | programs that use tonic already |
//! | [`testing`] | a mesh in a test |
//! | [`troubleshooting`] | the likely mistakes, and what each prints |
//! | [`limitations`] | before you decide |

pub mod quickstart {
    #![doc = include_str!("guide/quickstart.md")]
}

pub mod services {
    #![doc = include_str!("guide/services.md")]
}

pub mod balancing {
    #![doc = include_str!("guide/balancing.md")]
}

pub mod resilience {
    #![doc = include_str!("guide/resilience.md")]
}

pub mod shutdown {
    #![doc = include_str!("guide/shutdown.md")]
}

pub mod performance {
    #![doc = include_str!("guide/performance.md")]
}

pub mod certificates {
    #![doc = include_str!("guide/certificates.md")]
}

pub mod adopting {
    #![doc = include_str!("guide/adopting.md")]
}

pub mod testing {
    #![doc = include_str!("guide/testing.md")]
}

pub mod troubleshooting {
    #![doc = include_str!("guide/troubleshooting.md")]
}

pub mod limitations {
    #![doc = include_str!("guide/limitations.md")]
}
