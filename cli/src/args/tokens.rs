//! Arguments of join tokens.

use std::path::PathBuf;

use clap::Args;
use proto::{NodeName, SiteName};

use super::NodeRef;

/// `redbutton node enroll …`
#[derive(Debug, Args)]
pub struct EnrollNode {
    /// Its DNS name
    pub name: NodeName,
    /// Where it stands
    #[arg(long)]
    pub site: SiteName,
    /// The token
    #[command(flatten)]
    pub token: TokenArgs,
}

/// `redbutton node rekey …`
#[derive(Debug, Args)]
pub struct RekeyNode {
    /// Name or UUID
    pub node: NodeRef,
    /// The token
    #[command(flatten)]
    pub token: TokenArgs,
}

/// A join token.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Where the token goes; nothing may stand there. - for standard output; NAME.token unless given. Whoever has it
    /// can use it
    #[arg(long, short, value_name = "FILE|-")]
    pub out: Option<PathBuf>,
    /// Until it ends: 30m, 2h, 7d
    #[arg(long, default_value = "1h", value_parser = life, value_name = "TIME")]
    pub life: u32,
}

/// Longest life, seconds.
const MOST: u32 = 30 * 86_400;

/// Seconds of a text like `30m`, `2h`, `7d`.
fn life(text: &str) -> Result<u32, String> {
    let error = || "expected minutes, hours or days, up to 30d: 30m, 2h, 7d".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(error)?;
    let unit = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(error()),
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| (1..=MOST).contains(seconds))
        .ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_number_and_a_unit() {
        for (text, seconds) in [("30m", 1_800), ("1h", 3_600), ("30d", 2_592_000)] {
            assert_eq!(life(text), Ok(seconds));
        }
        for bad in ["", "h", "1", "0m", "31d", "-1h", "1w", "99999999999h", "1ä"] {
            assert!(life(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
