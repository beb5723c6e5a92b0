//! Certificates and connections, through the public API.
//!
//! What the Go original does wrong with keys and certificates, and the test that we do not:
//!
//! | defect | test |
//! |---|---|
//! | keys have mode 0644 | `dev_ca::files::keys_are_private_from_the_first_byte_on_whatever_the_umask` |
//! | an id `../x` writes outside the directory | `dev_ca::files::no_name_of_a_node_leads_out_of_the_directory` |
//! | nodes starting together end with different CAs | `dev_ca::race::sixteen_processes_at_once_end_with_one_ca` |
//! | each certificate is also `localhost` | `dev_ca::certificate::a_certificate_says_who_the_node_is_and_nothing_more` |
//! | a client verifies an address, not a node | `connection::another_node_than_the_dialled_one_gets_no_byte` |
//! | the id is never compared with the certificate | `load::the_certificate_has_to_be_the_one_of_the_node` |
//! | `AllowExpired` turns off the chain check | there is no such switch; `matrix::a_flaw_is_refused_for_its_reason_in_both_directions` |
//! | serials are Unix seconds | `dev_ca::certificate::serial_numbers_are_random` |
//! | the common name may be another node's | `matrix::a_flaw_is_refused_for_its_reason_in_both_directions` |
//! | TLS 1.2 is spoken | `connection::an_older_tls_is_refused` |

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, too, end a test this way"
)]

mod connection;
mod dev_ca;
mod load;
mod matrix;
mod plain_tonic;
mod record;
mod refusal;
mod support;
