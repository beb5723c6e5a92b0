use std::hint::black_box;
use std::str::FromStr;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that a handler uses before it answers: in every call, or in one of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burn {
    cpu: Duration,
    one_in: u64,
}

impl Burn {
    /// Uses it up if it is the turn of this call, the `number`th.
    ///
    /// It is work and no wait: a thread that the system takes off its core has the rest of it still to do.
    pub(crate) fn take(self, number: u64) {
        if number % self.one_in != self.one_in - 1 {
            return;
        }
        let end = thread_time() + self.cpu;
        while thread_time() < end {
            // The clock is a system call, so most of it is spent here.
            for number in 0..512_u32 {
                black_box(number);
            }
        }
    }
}

/// How long this thread has been on a core.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or_default());
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or_default())
}

/// `20us`, `2ms`, or `2ms@1/100` for one call in 100.
impl FromStr for Burn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not like 20us, 2ms or 2ms@1/100");
        let (cpu, one_in) = text.split_once("@1/").unwrap_or((text, "1"));
        let cpu = match (cpu.strip_suffix("us"), cpu.strip_suffix("ms")) {
            (Some(micros), _) => micros.parse().map(Duration::from_micros),
            (_, Some(millis)) => millis.parse().map(Duration::from_millis),
            _ => return Err(error()),
        };
        let cpu = cpu.ok().filter(|cpu| *cpu <= Duration::from_secs(1)).ok_or_else(error)?;
        let one_in = one_in.parse().ok().filter(|&calls| calls > 0).ok_or_else(error)?;
        Ok(Self { cpu, one_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burn_is_read_as_it_is_written() {
        let burn = |cpu, one_in| Ok(Burn { cpu, one_in });
        assert_eq!("20us".parse(), burn(Duration::from_micros(20), 1));
        assert_eq!("2ms@1/100".parse(), burn(Duration::from_millis(2), 100));
        for wrong in ["", "20", "us", "2s", "2ms@1/0", "2ms@100", "-1ms", "9999ms"] {
            assert!(wrong.parse::<Burn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_call_in_so_many_burns_what_it_says() {
        let burn: Burn = "3ms@1/4".parse().unwrap();
        let begin = thread_time();
        (0..4).for_each(|number| burn.take(number));
        let spent = thread_time().saturating_sub(begin);
        assert!((Duration::from_millis(3)..Duration::from_millis(6)).contains(&spent), "{spent:?}");
    }
}
