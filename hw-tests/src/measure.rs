//! Numbers about processes and runs. Everything is read from the kernel; nothing is estimated.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// CPU time that a whole process has used, user and system, to the nanosecond.
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = nix::time::clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))
        .with_context(|| format!("CPU clock of process {pid}"))?;
    Ok(Duration::from(clock.now().context("reading a CPU clock")?))
}

/// Resident memory of a process, KiB (`VmRSS` of proc(5)).
///
/// # Errors
/// When the process is gone.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .with_context(|| format!("{path} has no VmRSS"))
}

/// The value below which `share` (0.0 to 1.0) of the samples lie: nearest rank. Zero for no samples.
#[must_use]
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    samples.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank: between 1 and the number of samples"
    )]
    let rank = ((samples.len() as f64) * share).ceil().max(1.0) as usize;
    samples[rank.min(samples.len()) - 1]
}

/// The middle of the samples.
#[must_use]
pub fn median(samples: &mut [f64]) -> f64 {
    percentile(samples, 0.5)
}

/// The samples of the quietest third of the rounds: those with the least CPU time used by everybody else.
/// Wall times on a shared machine are judged on these alone (PERFORMANCE.md).
#[must_use]
pub fn quietest_third(rounds: &[Round]) -> Vec<f64> {
    let mut order: Vec<&Round> = rounds.iter().collect();
    order.sort_by_key(|round| round.stolen);
    order
        .iter()
        .take(rounds.len().div_ceil(3))
        .map(|round| round.value)
        .collect()
}

/// One measured round and how disturbed it was.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// What was measured.
    pub value: f64,
    /// Machine time that neither we nor the idle loop had during the round.
    pub stolen: Duration,
}

/// Jiffies of the whole machine: busy and steal, from the first line of `/proc/stat`.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn machine_busy() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let numbers: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal: everything but idle and iowait.
    let busy: u64 = numbers.iter().take(8).sum::<u64>()
        - numbers.get(3).copied().unwrap_or(0)
        - numbers.get(4).copied().unwrap_or(0);
    Ok(Duration::from_millis(busy * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&mut samples, 0.99), 99.0);
        assert_eq!(median(&mut samples), 50.0);
        assert_eq!(percentile(&mut [7.0], 0.99), 7.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn own_process_has_used_time_and_memory() {
        let me = std::process::id();
        assert!(cpu_time(me).expect("own clock") > Duration::ZERO);
        assert!(resident_kib(me).expect("own status") > 100);
    }

    #[test]
    fn the_quietest_rounds_count() {
        let round = |value, ms| Round {
            value,
            stolen: Duration::from_millis(ms),
        };
        let rounds = [round(9.0, 50), round(1.0, 0), round(8.0, 40)];
        assert_eq!(quietest_third(&rounds), vec![1.0]);
    }
}
