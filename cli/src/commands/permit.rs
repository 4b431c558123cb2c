//! `bpfseal permit`.

use jiff::{SignedDuration, Timestamp};
use policy::permit::{Action, SignedPermit, Terms};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;

use crate::{
    Failure, Output,
    passphrase::{self, KeyArgs},
};

/// Hosts whose clock is that much behind still take a fresh permit.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A permit is for an emergency, not for a season.
const LONGEST: SignedDuration = SignedDuration::from_hours(31 * 24);

/// Allow one action on one host for a while, signed by the authority.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal permit --key authority.key --action disarm --host 4f1c0a… --for 1h \\
      --reason INC-4711
  bpfseal permit --key authority.key --action generator --generator bpftrace \
      --host 4f1c0a… --for 30m --reason INC-4712

Prints one line that can be pasted or read out over a phone. It is good once, on one host.")]
pub struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// What to allow: disarm, audit, downgrade or generator.
    #[arg(long, value_parser = parse_action)]
    action: Action,
    /// The generator's name in the policy, for that action: it works until the permit ends.
    #[arg(long, value_name = "NAME")]
    generator: Option<String>,
    /// The host's id, as `bpfseal-enforcer status` prints it.
    #[arg(long)]
    host: String,
    /// How long it is good: 90s, 30m, 1h, 2d; at most 31d.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, default_value = "1h")]
    time: SignedDuration,
    /// When it begins (RFC 3339); default: now.
    #[arg(long, value_name = "INSTANT")]
    from: Option<Timestamp>,
    /// Why, for the audit log.
    #[arg(long)]
    reason: String,
}

#[derive(Serialize)]
struct Printed<'a> {
    permit: &'a str,
    digest: String,
    authority: String,
    terms: &'a Terms,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let terms = terms(args)?;
    let signer = passphrase::signer(&args.key, output)?;
    let line = terms
        .seal(|message| signer.sign(message, &SystemRandom::new()))
        .map_err(|error| match error {
            Ok(clause) => Failure::usage(clause),
            Err(error) => Failure::internal(format!("cannot sign: {error}")),
        })?;
    // What we hand out is what a host will accept.
    let permit = SignedPermit::verify(&line, signer.public_key())
        .map_err(|refusal| Failure::internal(refusal.to_string()))?;
    output.note(&format!(
        "{} on {} from {} to {}",
        terms.action, terms.host, terms.not_before, terms.not_after
    ));
    let printed = Printed {
        permit: &line,
        digest: permit.digest().to_string(),
        authority: signer.public_key().id().to_string(),
        terms: &terms,
    };
    output.result(&printed, || line.clone());
    Ok(())
}

fn terms(args: &Args) -> Result<Terms, Failure> {
    let mut nonce = [0; 8];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Failure::internal("the system gives no randomness"))?;
    let begin = args.from.unwrap_or_else(Timestamp::now);
    let whole = |instant: Result<Timestamp, jiff::Error>| {
        instant
            .and_then(|instant| Timestamp::from_second(instant.as_second()))
            .map_err(|error| {
                Failure::usage(format!("the permit's time cannot be written: {error}"))
            })
    };
    Ok(Terms {
        action: args.action,
        generator: args.generator.clone(),
        host: args.host.clone(),
        not_before: whole(match args.from {
            Some(from) => Ok(from),
            None => begin.checked_sub(SKEW),
        })?,
        not_after: whole(begin.checked_add(args.time))?,
        nonce,
        reason: args.reason.clone(),
    })
}

fn parse_action(word: &str) -> Result<Action, String> {
    word.parse()
}

fn parse_time(text: &str) -> Result<SignedDuration, String> {
    let want = || format!("want a number and s, m, h or d, as in 1h; got {text:?}");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(want)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(want()),
    };
    let number: i64 = number.parse().map_err(|_| want())?;
    let time = SignedDuration::from_secs(number.checked_mul(seconds).ok_or_else(want)?);
    if time <= SignedDuration::ZERO || time > LONGEST {
        return Err("a permit is good for at most 31 days, and longer than no time".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(parse_time("90s"), Ok(SignedDuration::from_secs(90)));
        assert_eq!(parse_time("2d"), Ok(SignedDuration::from_hours(48)));
        for text in [
            "",
            "h",
            "1",
            "-1h",
            "0s",
            "32d",
            "1w",
            "é",
            "9223372036854775807d",
        ] {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }
}
