//! Many processes at once, and one that dies.

use aegis_tls::Expected;

use super::*;

async fn connect(client: &Tls, server: &Tls) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pin = server.spiffe_id().node_id().clone();
    let (connected, accepted) =
        tokio::join!(client.connect(Expected::Node(&pin), near), server.accept(far));
    connected.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn sixteen_threads_at_once_end_with_one_ca() {
    {
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
        for client in &nodes {
            for server in &nodes {
                connect(client, server).await;
            }
        }
    }
}

#[tokio::test]
async fn sixteen_processes_at_once_end_with_one_ca() {
    for _ in 0..2 {
        let directory = Directory::new();
        let ids: Vec<_> = (0..16).map(|index| format!("node-{index}")).collect();
        let children: Vec<_> = ids.iter().map(|id| child(&directory, id, "022")).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let certificates: Vec<_> =
            ids.iter().map(|id| directory.read(&format!("{id}-cert.pem"))).collect();
        let nodes: Vec<_> = ids.iter().map(|id| directory.load(&worker(id)).unwrap()).collect();
        for (id, certificate) in ids.iter().zip(&certificates) {
            assert_eq!(&directory.read(&format!("{id}-cert.pem")), certificate, "issued twice");
        }
        for client in &nodes {
            connect(client, &nodes[0]).await;
        }
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_directory_that_works() {
    for round in 0..25 {
        let directory = Directory::new();
        let mut child = child(&directory, "morpheus-1", "000");
        // Where in its work it dies is up to chance; the pause only spreads the moments.
        std::thread::sleep(Duration::from_micros(400 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if !directory.path.exists() {
            continue;
        }
        for (name, mode) in directory.modes() {
            assert!(!name.contains("-key.pem") || mode == 0o600, "{name}: {mode:o}");
        }
        directory.load(&worker("morpheus-1")).unwrap();
    }
}
