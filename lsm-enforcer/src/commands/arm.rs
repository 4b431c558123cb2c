//! `bpfseal-enforcer arm`.

use std::{path::PathBuf, time::Duration};

use enforcer::{
    control::Request,
    enforcer::{ArmRequest, Arming, Confirmed},
    failure::Failure,
    kernel,
    output::{Output, printable_lines},
    store::{Document, Store},
};

use super::{Places, duration, must_be_root, read_permit, read_text};

/// Arms the gate: from then on BPF programs load only if a bundle that the policy admits
/// holds them. FILE.sig must be the authority's signature on FILE (`bpfseal policy sign`).
/// On an armed gate it loads another policy of the same authority.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer arm --policy policy.toml --authority authority.pub --audit-only
  bpfseal-enforcer arm --policy policy.toml --confirm-within 10m
  bpfseal-enforcer arm --confirm
  bpfseal-enforcer arm --policy older.toml --permit downgrade.permit")]
pub struct Args {
    /// The policy; its signature is in FILE.sig.
    #[arg(long, value_name = "FILE", required_unless_present = "confirm")]
    policy: Option<PathBuf>,
    /// The authority's public key; later the one that was pinned is the default.
    #[arg(long, value_name = "PUB")]
    authority: Option<PathBuf>,
    /// Report what would be refused, refuse nothing.
    #[arg(long)]
    audit_only: bool,
    /// Fall back to audit after TIME unless `arm --confirm` comes; when enforcing begins.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "audit_only")]
    confirm_within: Option<Duration>,
    /// Make a provisional arming final.
    #[arg(long, conflicts_with_all = ["policy", "authority", "audit_only", "confirm_within", "permit"])]
    confirm: bool,
    /// A permit, or a file with one: for a lower version, or audit after enforce.
    #[arg(long, value_name = "PERMIT")]
    permit: Option<String>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let Some(policy) = &args.policy else {
        let confirmed: Confirmed = places.perform(Request::Confirm, &[])?;
        output.result(&confirmed, || printable_lines(&confirmed.text()));
        return Ok(());
    };
    let request = ArmRequest {
        document: Document {
            text: read_text(policy)?,
            signature: read_signature(policy)?,
        },
        authority: match &args.authority {
            Some(path) => read_text(path)?,
            None => stored_authority(places)?,
        },
        audit_only: args.audit_only,
        confirm_within: args.confirm_within,
        permit: read_permit(args.permit.as_deref())?,
    };
    let has_daemon = places.daemon()?.is_some();
    if !has_daemon {
        kernel::shield::begin();
    }
    let arming: Arming = places.perform(Request::Arm(Box::new(request)), &[])?;
    if !has_daemon && let Some(seconds) = arming.confirm_within_seconds {
        super::confirm::start(places, seconds)?;
    }
    output.result(&arming, || printable_lines(&arming.text()));
    Ok(())
}

fn read_signature(policy: &std::path::Path) -> Result<String, Failure> {
    let path = policy.with_added_extension("sig");
    if !path.exists() {
        let detail = format!(
            "there is no signature beside it: {} is missing",
            path.display()
        );
        return Err(Failure::refused(policy::Reason::BadAuthority, detail));
    }
    read_text(&path)
}

fn stored_authority(places: &Places) -> Result<String, Failure> {
    let failed = |error| Failure::io("cannot open", &places.state, error);
    let store = Store::open(&places.state).map_err(failed)?;
    store.authority().map_err(failed)?.ok_or_else(|| {
        Failure::usage("--authority is needed at the first arming")
            .with_remedy("Give the public key of whoever signed the policy.")
    })
}
