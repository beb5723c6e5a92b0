//! Many processes at once, and processes that die at work.

use std::collections::BTreeSet;

use aegis_tls::Expected;

use super::*;

/// What a first start makes, in the order in which it appears.
const STEPS: [&str; 9] = [
    ".aegis.lock",
    ".ca-key.pem.new",
    ".ca-cert.pem.new",
    "ca-key.pem",
    "ca-cert.pem",
    ".morpheus-1-key.pem.new",
    ".morpheus-1-cert.pem.new",
    "morpheus-1-key.pem",
    "morpheus-1-cert.pem",
];

async fn connect(client: &Tls, server: &Tls) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pin = server.spiffe_id().node_id().clone();
    let (connected, accepted) =
        tokio::join!(client.connect(Expected::Node(&pin), near), server.accept(far));
    connected.unwrap();
    accepted.unwrap();
}

/// Each node judges each other one; a handshake shows both.
async fn connect_all_pairs(nodes: &[Tls]) {
    for (index, server) in nodes.iter().enumerate() {
        for client in &nodes[..index] {
            connect(client, server).await;
        }
    }
}

#[tokio::test]
async fn sixteen_threads_at_once_end_with_one_ca() {
    for _ in 0..3 {
        let directory = Directory::new();
        let nodes: Vec<Tls> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|index| {
                    let directory = &directory;
                    scope.spawn(move || directory.load(&worker(&format!("node-{index}"))).unwrap())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        connect_all_pairs(&nodes).await;
    }
}

#[tokio::test]
async fn sixteen_processes_at_once_end_with_one_ca() {
    for _ in 0..5 {
        let directory = Directory::new();
        let ids: Vec<_> = (0..16).map(|index| format!("node-{index}")).collect();
        let children: Vec<_> = ids.iter().map(|id| child(&directory, id, "umask 022")).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        // As they lie there: `cert_dir` would make a new one for a node whose certificate is of a lost CA.
        let nodes: Vec<_> = ids.iter().map(|id| directory.load_as_files(id)).collect();
        connect_all_pairs(&nodes).await;
    }
}

fn is_staged(name: &str) -> bool {
    name.contains(".pem.")
}

/// What a process that died left behind is safe, and whoever comes next completes it.
async fn check_recovery(directory: &Directory) {
    let private = |(name, mode): &(String, u32)| !name.contains("-key.pem") || *mode == 0o600;
    let left = directory.modes();
    assert!(left.iter().all(private), "{left:?}");
    // From the first rename on, the CA is the CA.
    let chosen = directory.join("ca-key.pem").exists().then(|| {
        let is_cut_off = !directory.join("ca-cert.pem").exists();
        directory.read(if is_cut_off { ".ca-cert.pem.new" } else { "ca-cert.pem" })
    });

    let nodes = ["morpheus-1", "vicky"].map(|id| directory.load(&worker(id)).unwrap());
    connect_all_pairs(&nodes).await;
    directory.load_as_files("morpheus-1");
    if let Some(chosen) = chosen {
        assert_eq!(directory.read("ca-cert.pem"), chosen, "another CA took the place of {left:?}");
    }
    let files = directory.modes();
    assert!(files.iter().all(private), "{files:?}");
    assert!(!files.iter().any(|(name, _)| is_staged(name)), "{left:?} became {files:?}");
}

#[tokio::test]
async fn a_process_killed_at_any_moment_leaves_a_directory_that_works() {
    const ROUNDS: usize = 3;
    let mut partial = BTreeSet::new();
    for step in 0..STEPS.len() {
        for _ in 0..ROUNDS {
            let directory = Directory::new();
            let mut child = child(&directory, "morpheus-1", "umask 000");
            // A step may be over before we look, so a later one counts as well.
            let reached = || STEPS[step..].iter().any(|name| directory.join(name).exists());
            while !reached() && child.try_wait().unwrap().is_none() {}
            assert!(reached(), "it ended before {}", STEPS[step]);
            child.kill().unwrap();
            child.wait().unwrap();
            if !directory.join("morpheus-1-cert.pem").exists() {
                partial.insert(directory.modes());
            }
            check_recovery(&directory).await;
        }
    }
    // Six or seven states on an idle machine; each sync to disk is time enough to be killed in.
    assert!(3 <= partial.len(), "hardly any was killed at work: {partial:?}");
    assert!(partial.iter().flatten().any(|(name, _)| is_staged(name)), "{partial:?}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_written_anew() {
    // In blocks of 512 bytes: the first write of a key, and the middle of the first certificate.
    for (blocks, cut, length) in [(0, ".ca-key.pem.new", 0), (1, ".ca-cert.pem.new", 512)] {
        let directory = Directory::new();
        let limits = format!("umask 000; ulimit -c 0; ulimit -f {blocks}");
        assert!(!child(&directory, "morpheus-1", &limits).wait().unwrap().success());
        assert_eq!(directory.read(cut).len(), length, "{:?}", directory.modes());
        check_recovery(&directory).await;
    }
}
