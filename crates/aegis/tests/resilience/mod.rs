//! Providers that refuse, hang, break and restart, and callers that do not notice.
//!
//! Short twins of the long runs in the bench report; [`TestMesh::faults`] plays what goes wrong. What they show, by its
//! letter in the baselines of plain tonic or its number among the cases:
//!
//! | what goes wrong | test |
//! |---|---|
//! | A: one of three refuses connections | `refusing::a_provider_that_refuses_connections_costs_none_of_ten_thousand_calls` |
//! | B: one of three is slow | `failing::a_slow_provider_gets_a_hundredth_of_the_calls_by_load` |
//! | E: all are away and come back | `outage`, beside this module |
//! | E: a service that is down | `failing::a_service_that_is_down_gets_a_tenth_more_attempts_than_calls` |
//! | F: one accepts and says nothing, or is stopped | `hanging`; by signals, `processes` of the examples |
//! | G: a rolling restart, a kill | `restarting` |
//! | one long call beside what breaks connections | `beside` |
//! | more streams than a connection has | `crowded`; a limit of 0, `narrow` of aegis-client |
//! | C17: packets are lost; idle connections | `hanging::a_dead_host_is_noticed_…`, `hanging::an_idle_connection_lives_…` |
//! | C17: too many PINGs | `going_away::too_many_pings_are_halved` of aegis-transport |
//! | C19: a deadline over two hops | `hops` |
//! | C24: one fails at once | `failing::a_provider_that_fails_at_once_attracts_no_calls_whatever_the_balancer` |
//! | C25: what may be sent again | `moves` of aegis-client, `restarting::a_killed_provider_costs_only_…`, `failing` |
//! | C27: calls and streams over a rolling restart | `restarting::a_rolling_restart_fails_no_call_and_streams_resume_elsewhere` |
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
