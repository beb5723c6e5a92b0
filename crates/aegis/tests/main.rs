//! Stories of a whole mesh through the public API, over real mutual TLS and HTTP/2, one module each.
//!
//! What the Go original does wrong in its mesh, and the test that we do not (keys and certificates: the tests of
//! aegis-tls):
//!
//! | defect | test |
//! |---|---|
//! | its documented client cannot call: it verifies `host:port` | `identity::ids_that_are_no_dns_names_call_each_other` |
//! | two fresh providers are never both discovered | `discovery::three_fresh_nodes_of_which_two_know_only_the_first_see_each_other` |
//! | a sync deletes entries, the own one included | the merge laws of aegis-topology, `lifecycle::a_go_caller_gets_the_whole_list_…` |
//! | one bad version freezes the mesh | `lifecycle::a_go_caller_gets_the_whole_list_and_a_higher_version_only_after_a_change` |
//! | nothing is synced, noticed or removed by itself | `discovery`, all of it |
//! | round robin over a random order | `balancing::three_connected_providers_share_the_calls_exactly` of aegis-client |
//! | a held client never fails over | `discovery::a_provider_that_died_leaves_the_picks_at_once` |
//! | any node can stand for another | `identity::a_node_that_claims_anothers_address_or_id_gets_no_call` |
//! | a shutdown hangs with one call in flight | `lifecycle::a_stream_that_never_ends_does_not_hold_a_shutdown` |
//! | the bind address is the advertised one | `discovery::others_dial_the_advertised_address_and_not_the_one_that_was_bound` |
//! | errors of the server are discarded | `lifecycle::a_server_that_stops_by_itself_says_so` |

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end a test this way; a measurement is printed"
)]

mod addresses;
mod age;
mod as_tonic;
mod blocking;
mod builder;
mod certificates_guide;
mod crashed;
mod deadlines;
mod discovery;
mod guide;
mod handlers;
mod identity;
mod keys;
mod late;
mod lifecycle;
mod log;
mod openssl;
mod outage;
mod preference;
mod resilience;
mod restarts;
mod rolling;
mod service;
mod services_guide;
mod strangers;
mod troubleshooting;
mod unread;
