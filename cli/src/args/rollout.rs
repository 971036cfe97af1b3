//! `redbutton rollout …`

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::press::reason;

/// A program: its file, or the SHA-256 of one that the controller has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// To be uploaded.
    File(PathBuf),
    /// On the controller's shelf.
    Digest([u8; 32]),
}

impl FromStr for Program {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut digest = [0; 32];
            for (at, byte) in digest.iter_mut().enumerate() {
                *byte = digit(at).unwrap_or_default();
            }
            return Ok(Program::Digest(digest));
        }
        Ok(Program::File(text.into()))
    }
}

/// `90`, `90s`, `30m`, `2h`.
///
/// # Errors
/// A text for people.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "m" => 60,
        "h" => 3_600,
        _ => 1,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:.40?} is no time: expected 90s, 30m or 2h"))
}

/// `10%`.
fn percent(text: &str) -> Result<u32, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(number @ 1..=100) => Ok(number),
        _ => Err(format!("{text:.40?} is no share: expected 1% to 100%")),
    }
}

/// `redbutton rollout …`
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Bring another version of the node manager to every node, in waves. Support only
    Start(StartRollout),
    /// List rollouts, newest first
    Ls {
        /// At most this many
        #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
    },
    /// Show a rollout, node by node
    Show {
        /// As `rollout ls` prints it; the newest when not given
        rollout: Option<uuid::Uuid>,
        /// List every node
        #[arg(long)]
        all: bool,
    },
    /// Follow a rollout until it is over, or halted
    Watch {
        /// As `rollout ls` prints it; the newest when not given
        rollout: Option<uuid::Uuid>,
        /// End after this long in any case
        #[arg(long, value_name = "TIME", value_parser = span)]
        wait: Option<Duration>,
    },
    /// Begin nothing new until resumed
    Pause(SteerRollout),
    /// Go on; after a halt the bad nodes so far stay as they are
    Resume(SteerRollout),
    /// End it; nodes stay as they are
    Abort(SteerRollout),
    /// Bring updated nodes back to what they ran before
    Back(SteerRollout),
}

/// Which, and why.
#[derive(Debug, Args)]
pub struct SteerRollout {
    /// As `rollout ls` prints it; the newest when not given
    pub rollout: Option<uuid::Uuid>,
    /// Why
    #[arg(long, short, value_parser = reason)]
    pub reason: String,
}

/// A new rollout.
#[derive(Debug, Args)]
pub struct StartRollout {
    /// The program: a file, or the SHA-256 of one that the controller has; one for each architecture
    #[arg(long, required = true, num_args = 1.., value_name = "FILE|SHA256", value_parser = clap::value_parser!(Program))]
    pub software: Vec<Program>,
    /// Cumulative shares of the fleet; each wave begins when the one before it is well
    #[arg(long, value_delimiter = ',', default_value = "1%,10%,50%,100%", value_parser = percent)]
    pub waves: Vec<u32>,
    /// The nodes of a wave begin at random moments within this time
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = span)]
    pub spread: Duration,
    /// How long an updated node must stay well before it counts
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    pub soak: Duration,
    /// How long a node may take to attach again; then it goes back by itself
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = span)]
    pub deadline: Duration,
    /// Bad nodes that do not halt it
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub tolerate: u32,
    /// Why
    #[arg(long, short, value_parser = reason)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_as_people_write_them() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("30m", 1_800), ("2h", 7_200), ("0s", 0)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "m",
            "1d",
            "-1s",
            "99999999999999999999",
            "9999999999999999999h",
            "é",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
        assert_eq!(percent("10%"), Ok(10));
        assert!(percent("0%").is_err() && percent("101").is_err() && percent("%").is_err());
    }

    #[test]
    fn a_program_is_a_digest_or_a_file() {
        let digest = "ab".repeat(32);
        assert_eq!(digest.parse(), Ok(Program::Digest([0xab; 32])));
        assert_eq!("./nodemgr".parse(), Ok(Program::File("./nodemgr".into())));
        assert_eq!("zz".repeat(32).parse(), Ok(Program::File("zz".repeat(32).into())));
    }
}
