use std::fs;
use std::time::Duration;

/// Time that the threads of these processes have spent on a CPU so far, in user mode and in the kernel.
///
/// Zero where a process or this way of asking does not exist (it is Linux's).
pub(crate) fn of(processes: &[u32]) -> Duration {
    processes.iter().map(|&pid| of_process(pid)).sum()
}

fn of_process(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
