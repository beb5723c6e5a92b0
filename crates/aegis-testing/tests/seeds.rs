//! A test that fails says what its faults were drawn from.

use std::process::Command;

use aegis_testing::{Faults, MemoryNetwork};

const FAILS: &str = "AEGIS_TESTING_FAILS";

/// What the child runs: this binary again, with this test alone. Without its environment it has nothing to do.
#[tokio::test(start_paused = true)]
async fn a_test_that_fails_on_purpose() {
    let Some(draws) = std::env::var_os(FAILS) else { return };
    let faults = Faults::new();
    let network = faults.network_of("c", std::sync::Arc::new(MemoryNetwork::new()));
    if draws == "drawn" {
        let second = std::time::Duration::from_secs(1);
        faults.to("127.0.0.1:1").delay(second..=2 * second);
    }
    drop(network.connect(&"127.0.0.1:1".parse().unwrap()).await);
    panic!("on purpose");
}

fn run(draws: &str, seed: Option<&str>) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "seeds::a_test_that_fails_on_purpose", "--nocapture"]);
    child.env(FAILS, draws).env_remove("AEGIS_SEED").envs(seed.map(|seed| ("AEGIS_SEED", seed)));
    let output = child.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_seed_is_printed_where_it_decided_anything_and_the_environment_sets_it() {
    let told = run("drawn", Some("42"));
    assert_eq!(told.matches("AEGIS_SEED=42 ").count(), 1, "{told}");
    let told = run("drawn", None);
    assert!(told.contains("AEGIS_SEED=") && told != run("drawn", None), "{told}");
    let told = run("nothing", Some("42"));
    assert!(told.contains("on purpose") && !told.contains("AEGIS_SEED"), "{told}");
}
