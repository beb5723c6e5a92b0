//! What `build` refuses.

use aegis_client::{BuildError, ServicePool};

use crate::mesh::{IDENTITY, Mesh};

#[tokio::test]
async fn every_mistake_is_reported_at_once() {
    let error = ServicePool::builder()
        .provider("Morpheus", "127.0.0.1:1", [IDENTITY])
        .provider("a", "127.0.0.1", [IDENTITY])
        .provider("b", "0.0.0.0:1", [IDENTITY])
        .provider("c", "127.0.0.1:1", [])
        .provider("d", "127.0.0.1:1", [IDENTITY])
        .seeds(["127.0.0.1:2"])
        .build()
        .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("6 mistakes; "), "{text}");
    for words in [
        "Morpheus",
        "host:port",
        "b cannot be reached at 0.0.0.0:1",
        "c has no services",
        "providers and seeds",
        "no certificate",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    assert!(error.mistakes().any(|it| matches!(it, BuildError::NoTlsConfig)));
}

#[tokio::test]
async fn a_pool_needs_somebody_to_call() {
    let error = ServicePool::builder().tls(Mesh::new().options()).build().unwrap_err();
    assert!(matches!(error, BuildError::NobodyToCall), "{error}");
}

#[test]
fn a_pool_needs_a_runtime() {
    let error = Mesh::new().builder(&[("a", "127.0.0.1:1".parse().unwrap())]).build().unwrap_err();
    assert!(matches!(error, BuildError::NoRuntime), "{error}");
}

#[tokio::test]
async fn addresses_and_services_of_one_node_add_up() {
    let pool = Mesh::new()
        .builder(&[("a", "127.0.0.1:1".parse().unwrap()), ("a", "127.0.0.1:2".parse().unwrap())])
        .build()
        .unwrap();
    let explanation = pool.explain(&IDENTITY);
    assert_eq!(explanation.candidates.len(), 1);
    assert_eq!(explanation.candidates[0].addresses.len(), 2);
}
