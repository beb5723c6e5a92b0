use std::fs;
use std::time::Duration;

/// Time that the threads of a process have spent on a CPU so far, in user mode and in the kernel.
///
/// Zero where the process or this way of asking does not exist (it is Linux's).
pub(crate) fn of_process(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
