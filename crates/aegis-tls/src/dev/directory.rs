use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::DevCaError;
use crate::source::{mode_for_others, warn_of_readable_key};

const LOCK: &str = ".aegis.lock";
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(5);
/// Far more than any file of ours.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A directory of keys that only its owner may write to.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
}

/// Held by the one process that may change the directory; given back on drop, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Who may read a file; only its owner may write to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Everybody,
    Owner,
}

impl Directory {
    pub(super) fn open_or_create(path: &Path) -> Result<Self, DevCaError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(|source| io_error("create the directory", path, source))?;
        check_directory(path)?;
        Ok(Self { path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until no other process changes the directory; `None` if it cannot be changed by us anyway.
    pub(super) fn lock(&self) -> Result<Option<Lock>, DevCaError> {
        let path = self.join(LOCK);
        check_is_file(&path)?;
        let mut options = OpenOptions::new();
        // Opened to write, though nothing is: not every file system locks a file that was opened to read.
        options.create(true).truncate(false).write(true);
        mode(&mut options, Access::Owner);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(io_error("open", &path, source)),
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(DevCaError::Locked { path, seconds: LOCK_TIMEOUT.as_secs() });
                }
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            }
        }
    }

    /// The bytes of a file, or `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DevCaError> {
        self.open(name)?.map(|file| self.read_opened(name, file)).transpose()
    }

    /// As [`read`](Self::read), and says so (WARN) if others can read it too.
    pub(super) fn read_key(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DevCaError> {
        let Some(file) = self.open(name)? else {
            return Ok(None);
        };
        let path = self.join(name);
        let metadata = file.metadata().map_err(|source| io_error("read", &path, source))?;
        if let Some(mode) = mode_for_others(&metadata) {
            warn_of_readable_key(&path, mode);
        }
        self.read_opened(name, file).map(Some)
    }

    fn open(&self, name: &str) -> Result<Option<File>, DevCaError> {
        let path = self.join(name);
        if !check_is_file(&path)? {
            return Ok(None);
        }
        let error = |source| io_error("read", &path, source);
        let file = File::open(&path).map_err(error)?;
        // What was opened may be something else by now.
        if !file.metadata().map_err(error)?.is_file() {
            return Err(DevCaError::NotAFile { path });
        }
        Ok(Some(file))
    }

    fn read_opened(&self, name: &str, file: File) -> Result<Zeroizing<Vec<u8>>, DevCaError> {
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|source| io_error("read", &self.join(name), source))?;
        Ok(bytes)
    }

    /// Writes a file beside its place, where a crash does no harm; [`publish`](Self::publish) puts it there.
    pub(super) fn stage(&self, name: &str, bytes: &[u8], access: Access) -> Result<(), DevCaError> {
        let path = self.join(&staged(name));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path, error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        // The mode counts from the first byte on; a link in the way is an error.
        options.write(true).create_new(true);
        mode(&mut options, access);
        options
            .open(&path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(|source| io_error("write", &path, source))
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.join(name).exists()
    }

    pub(super) fn is_staged(&self, name: &str) -> Result<bool, DevCaError> {
        check_is_file(&self.join(&staged(name)))
    }

    pub(super) fn read_staged(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DevCaError> {
        self.read(&staged(name))
    }

    /// Puts staged files in their places, in this order, and makes that last.
    pub(super) fn publish(&self, names: &[&str]) -> Result<(), DevCaError> {
        for name in names {
            let path = self.join(name);
            fs::rename(self.join(&staged(name)), &path)
                .map_err(|source| io_error("write", &path, source))?;
        }
        self.sync()
    }

    #[cfg(unix)]
    fn sync(&self) -> Result<(), DevCaError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| io_error("sync", &self.path, source))
    }

    #[cfg(not(unix))]
    fn sync(&self) -> Result<(), DevCaError> {
        Ok(())
    }
}

fn staged(name: &str) -> String {
    format!(".{name}.new")
}

/// Whether the path exists; a link, a pipe or a directory there is an error.
fn check_is_file(path: &Path) -> Result<bool, DevCaError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(DevCaError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error("read", path, source)),
    }
}

/// Whoever may write into the directory can replace what is checked between the check and the use.
#[cfg(unix)]
fn check_directory(path: &Path) -> Result<(), DevCaError> {
    use std::os::unix::fs::MetadataExt as _;

    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let metadata = fs::metadata(path).map_err(|source| io_error("read", path, source))?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(DevCaError::Exposed { directory: path.to_owned(), mode });
    }
    // std has no geteuid; where /proc is missing the check is, too.
    let own = fs::metadata("/proc/self").ok().map(|it| it.uid());
    if owner != 0 && own.is_some_and(|own| own != owner) {
        return Err(DevCaError::ForeignOwner { directory: path.to_owned(), owner });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(_: &Path) -> Result<(), DevCaError> {
    Ok(())
}

#[cfg(unix)]
fn mode(options: &mut OpenOptions, access: Access) {
    let mode = match access {
        Access::Everybody => 0o644,
        Access::Owner => 0o600,
    };
    std::os::unix::fs::OpenOptionsExt::mode(options, mode);
}

#[cfg(not(unix))]
fn mode(_: &mut OpenOptions, _: Access) {}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> DevCaError {
    DevCaError::Io { action, path: path.to_owned(), source }
}
