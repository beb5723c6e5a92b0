//! Modes, links, halves: what may lie in the directory and what is done about it.

use std::os::unix::fs::symlink;
use std::sync::LazyLock;

use aegis_core::NodeId;

use super::*;

#[test]
fn keys_are_private_from_the_first_byte_on_whatever_the_umask() {
    for (umask, public) in [("000", 0o644), ("022", 0o644), ("077", 0o600)] {
        let directory = Directory::new();
        assert!(
            child(&directory, "morpheus-1", &format!("umask {umask}")).wait().unwrap().success()
        );
        let expected = [
            (".", 0o700),
            (".aegis.lock", 0o600),
            ("ca-cert.pem", public),
            ("ca-key.pem", 0o600),
            ("morpheus-1-cert.pem", public),
            ("morpheus-1-key.pem", 0o600),
        ];
        assert_eq!(directory.modes(), expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}

#[test]
fn half_a_ca_is_an_error_and_never_replaced() {
    let key_only = Directory::with_ca();
    key_only.remove("ca-cert.pem");
    let key = key_only.read("ca-key.pem");
    assert!(matches!(refusal(key_only.load(&worker("a"))), DevCaError::HalfCa { .. }));
    let opened = DevCa::open_or_create(&key_only.path);
    assert!(matches!(opened, Err(DevCaError::HalfCa { .. })));
    assert_eq!(key_only.read("ca-key.pem"), key);
    assert!(!key_only.join("ca-cert.pem").exists());

    let certificate_only = Directory::with_ca();
    certificate_only.remove("ca-key.pem");
    let error = refusal(certificate_only.load(&worker("a")));
    assert!(matches!(error, DevCaError::CannotIssue { .. }), "{error}");
    let opened = DevCa::open_or_create(&certificate_only.path);
    assert!(matches!(opened, Err(DevCaError::HalfCa { .. })));
    assert!(!certificate_only.join("ca-key.pem").exists());

    // A node's pair without its CA: a new CA would make the pair worthless.
    let pair_only = Directory::new();
    pair_only.load(&worker("a")).unwrap();
    pair_only.remove("ca-cert.pem");
    pair_only.remove("ca-key.pem");
    assert!(matches!(refusal(pair_only.load(&worker("a"))), DevCaError::HalfCa { .. }));
    // Nor is half a pair overwritten by a CA that did not issue it.
    pair_only.remove("a-cert.pem");
    let key = pair_only.read("a-key.pem");
    assert!(matches!(refusal(pair_only.load(&worker("a"))), DevCaError::HalfCa { .. }));
    assert_eq!(pair_only.read("a-key.pem"), key);
}

#[test]
fn a_creation_cut_off_between_its_renames_is_completed() {
    let directory = Directory::with_ca();
    let certificate = directory.read("ca-cert.pem");
    fs::rename(directory.join("ca-cert.pem"), directory.join(".ca-cert.pem.new")).unwrap();
    directory.load(&worker("a")).unwrap();
    assert_eq!(directory.read("ca-cert.pem"), certificate);

    // Not with a certificate of another CA.
    let other = Directory::with_ca();
    other.remove("ca-cert.pem");
    fs::write(other.join(".ca-cert.pem.new"), &certificate).unwrap();
    assert!(matches!(refusal(other.load(&worker("a"))), DevCaError::HalfCa { .. }));
}

#[test]
fn a_ca_that_was_moved_away_after_issuing_still_works() {
    let directory = Directory::new();
    directory.load(&worker("a")).unwrap();
    directory.remove("ca-key.pem");
    directory.load(&worker("a")).unwrap();
    assert!(!directory.join("ca-key.pem").exists());
}

#[test]
fn the_halves_of_two_cas_are_no_ca() {
    let (one, other) = (Directory::with_ca(), Directory::with_ca());
    fs::copy(other.join("ca-key.pem"), one.join("ca-key.pem")).unwrap();
    let (certificate, key) = (one.read("ca-cert.pem"), one.read("ca-key.pem"));
    assert!(matches!(refusal(one.load(&worker("a"))), DevCaError::Mismatch { .. }));
    assert_eq!((one.read("ca-cert.pem"), one.read("ca-key.pem")), (certificate, key));
}

#[test]
fn an_expired_ca_is_not_replaced_but_explained() {
    let directory = Directory::with_ca();
    let certificate = directory.read("ca-cert.pem");
    let error = refusal(directory.load_at(&worker("a"), SystemTime::now() + 31 * DAY));
    assert!(matches!(error, DevCaError::Expired { .. }));
    assert!(error.to_string().contains("remove the directory to get a new one"), "{error}");
    assert_eq!(directory.read("ca-cert.pem"), certificate);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let directory = Directory::with_ca();
    for mode in [0o777, 0o770, 0o702, 0o1777] {
        fs::set_permissions(&directory.path, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(directory.load(&worker("a")));
        assert!(
            matches!(error, DevCaError::Exposed { mode: found, .. } if found == mode),
            "{error}"
        );
    }
    fs::set_permissions(&directory.path, fs::Permissions::from_mode(0o755)).unwrap();
    directory.load(&worker("a")).unwrap();
}

#[test]
fn links_are_neither_followed_nor_written_through() {
    let victim = tempfile::NamedTempFile::new().unwrap();
    fs::write(victim.path(), "precious").unwrap();
    for name in [".aegis.lock", "ca-key.pem", "ca-cert.pem", "a-key.pem", "a-cert.pem"] {
        let directory = Directory::new();
        directory.load(&worker("a")).unwrap();
        directory.remove(name);
        symlink(victim.path(), directory.join(name)).unwrap();
        let error = refusal(directory.load(&worker("a")));
        assert!(
            matches!(&error, DevCaError::NotAFile { path } if path == &directory.join(name)),
            "{name}: {error}"
        );
    }
    // Where the next file is staged, a link is removed, not followed.
    for name in ["ca-key.pem", "ca-cert.pem", "a-key.pem", "a-cert.pem"] {
        let directory = Directory::new();
        fs::create_dir_all(&directory.path).unwrap();
        symlink(victim.path(), directory.join(&format!(".{name}.new"))).unwrap();
        directory.load(&worker("a")).unwrap();
    }
    assert_eq!(fs::read(victim.path()).unwrap(), b"precious");
}

#[test]
fn no_name_of_a_node_leads_out_of_the_directory() {
    for id in ["../escaped", "/etc/passwd", "a/b", "..", "ca", "a\0b", ""] {
        assert!(id.parse::<NodeId>().is_err(), "{id:?}");
    }
    let directory = Directory::new();
    for id in ["10", "node.1", "a.-b", "a_b"] {
        directory.load(&worker(id)).unwrap();
    }
    let parent = fs::read_dir(directory.path.parent().unwrap()).unwrap();
    assert_eq!(parent.count(), 1);
    assert_eq!(directory.modes().len(), 4 + 2 * 4);
}

#[test]
fn the_creation_of_a_ca_is_announced_once_with_its_directory() {
    let directory = Directory::new();
    let text = logged(|| {
        for id in ["a", "b", "a"] {
            directory.load(&worker(id)).unwrap();
        }
    });
    assert_eq!(text.matches("created a development CA").count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains(directory.path.to_str().unwrap()), "{text}");
    let key = String::from_utf8(directory.read("ca-key.pem")).unwrap();
    assert!(!text.contains(key.lines().nth(1).unwrap()));
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    let directory = Directory::new();
    directory.load(&worker("a")).unwrap();
    let warnings = || {
        let text = logged(|| drop(directory.load(&worker("a")).unwrap()));
        ["ca-key.pem", "a-key.pem", "chmod 600"].map(|part| text.matches(part).count())
    };
    // The name of the one ends as that of the other.
    for (name, mode, expected) in [
        ("ca-key.pem", 0o600, [0, 0, 0]),
        ("ca-key.pem", 0o644, [1, 1, 1]),
        ("ca-key.pem", 0o640, [1, 1, 1]),
        ("ca-key.pem", 0o400, [0, 0, 0]),
        ("a-key.pem", 0o604, [0, 1, 1]),
        ("a-key.pem", 0o400, [0, 0, 0]),
    ] {
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(warnings(), expected, "{name} with mode {mode:o}");
    }
    fs::set_permissions(directory.join("ca-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = logged(|| drop(DevCa::open_or_create(&directory.path).unwrap()));
    assert!(text.contains("WARN") && text.contains("mode=644"), "{text}");
}

/// What is logged meanwhile.
pub(super) fn logged(work: impl FnOnce()) -> String {
    // While there is one subscriber, tracing asks only the thread that meets an event first whether it is wanted: that
    // may be a test beside this one, which has none. With a second, all are asked.
    static SECOND: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default()));
    LazyLock::force(&SECOND);
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    log.text()
}

#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
