//! `bpfseal attest`.

use std::path::PathBuf;

use bundle::{UnverifiedBundle, media};
use policy::{predicate, signature, statement};
use serde_json::{Value, json};

mod verifier;

use super::sign::{self, Made};
use crate::{
    Failure, Output, epoch, files, provenance,
    registry::Connection,
    signing::{Seal, SignArgs},
    source::Source,
};

/// Sign a statement about a bundle: provenance, an SBOM, the inventory, anything.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal attest xdp.tar --provenance --key release.key
  bpfseal attest registry.example.com/net/xdp:v1 --sbom xdp.cdx.json --key release.key
  bpfseal attest xdp.tar --inventory --key release.key
  bpfseal attest xdp.tar --cyclonedx --key release.key
  bpfseal attest xdp.tar --predicate review.json --type https://acme.example/review/v1 --key k
  bpfseal attest verifier xdp.tar --kernels 6.1,6.12,7.3 --key release.key

The statement (in-toto v1) is attached as a Sigstore bundle, as `cosign attest` does it, and
`cosign verify-attestation` accepts it. An attestation admits nothing by itself; a policy's
rule can ask for it with `require`.")]
#[command(group = clap::ArgGroup::new("what").required(true))]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    made: Option<Tried>,
    /// A bundle file, or a reference: host[:port]/repository[:tag][@digest].
    #[arg(value_name = "BUNDLE|REFERENCE", required = true)]
    bundle: Option<String>,
    /// The predicate: any JSON file.
    #[arg(long, value_name = "FILE", group = "what", requires = "type")]
    predicate: Option<PathBuf>,
    /// What the predicate is: slsa-provenance, spdx, cyclonedx, inventory, or a URI.
    #[arg(long, value_name = "TYPE", requires = "predicate")]
    r#type: Option<String>,
    /// A software bill of materials: CycloneDX or SPDX as JSON.
    #[arg(long, value_name = "FILE", group = "what")]
    sbom: Option<PathBuf>,
    /// A software bill of materials (CycloneDX 1.6) made from the bundle's inventory.
    #[arg(long, group = "what")]
    cyclonedx: bool,
    /// What programs, maps and helpers the bundle has, read from its objects.
    #[arg(long, group = "what")]
    inventory: bool,
    /// SLSA provenance v1 from what the CI system that runs here says (GitHub, GitLab,
    /// Buildkite), or from --builder, --source and --revision.
    #[arg(long, group = "what")]
    provenance: bool,
    #[command(flatten)]
    build: provenance::BuildArgs,
    #[command(flatten)]
    by: SignArgs,
    /// Write the bundle here instead of into the same file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// What is found out first.
#[derive(clap::Subcommand)]
enum Tried {
    /// Boot kernels in virtual machines, load every program there, and sign what happened.
    Verifier(Box<verifier::Args>),
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    if let Some(Tried::Verifier(args)) = &args.made {
        return verifier::run(args, output);
    }
    let bundle = args
        .bundle
        .as_deref()
        .ok_or_else(|| Failure::usage("name a bundle"))?;
    let opened = Source::parse(bundle)?.open(&args.connection, output)?;
    let done = sign::store(opened, args.output.as_deref(), |bundle| {
        let (kind, predicate) = predicate_of(args, bundle)?;
        make(&args.by, output, bundle, &kind, &predicate)
    })?;
    output.result(&done, || done.describe());
    Ok(())
}

/// Signs the statement.
fn make(
    by: &SignArgs,
    output: &Output,
    bundle: &UnverifiedBundle,
    kind: &str,
    predicate: &Value,
) -> Result<Made, Failure> {
    let seal = Seal::ready(by, output)?;
    let subject = bundle.descriptor();
    let name = bundle.recorded_inventory().name.as_deref();
    let payload = statement::attested(subject.digest, name, kind, predicate);
    let sealed = seal.statement(&payload, subject.digest)?;
    let created = epoch::created()?;
    let attached = signature::attached(subject, sealed.bundle, kind, created.as_deref());
    Ok((attached, sealed.by, Some(kind.to_owned())))
}

/// The predicate's type and content.
fn predicate_of(args: &Args, bundle: &UnverifiedBundle) -> Result<(String, Value), Failure> {
    if args.inventory {
        let inventory = serde_json::to_value(bundle.recorded_inventory())
            .map_err(|error| Failure::internal(error.to_string()))?;
        return Ok((media::INVENTORY_PREDICATE.to_owned(), inventory));
    }
    if args.cyclonedx {
        let sbom = bundle::cyclonedx::document(bundle.recorded_inventory());
        return Ok((media::CYCLONEDX_PREDICATE.to_owned(), sbom));
    }
    if args.provenance {
        let predicate = provenance::ambient(&args.build)?;
        return Ok((media::PROVENANCE_PREDICATE.to_owned(), predicate));
    }
    if let Some(path) = &args.sbom {
        let sbom = read_json(path)?;
        let kind = sbom_type(&sbom).ok_or_else(|| {
            Failure::refused(
                policy::Reason::WrongPredicate,
                format!("{} is neither CycloneDX nor SPDX as JSON", path.display()),
            )
            .with_remedy("Give another predicate with `--predicate FILE --type URI`.")
        })?;
        return Ok((kind.to_owned(), sbom));
    }
    let (Some(path), Some(kind)) = (&args.predicate, &args.r#type) else {
        return Err(Failure::usage("give `--predicate` with its `--type`"));
    };
    let uri = predicate::uri(kind).ok_or_else(|| {
        Failure::usage(format!(
            "{kind:?} is no type of predicates: give a short name or a URI"
        ))
    })?;
    if uri == media::SIGN_PREDICATE {
        return Err(Failure::usage("that type is a signature: `bpfseal sign`"));
    }
    Ok((uri.to_owned(), read_json(path)?))
}

fn read_json(path: &std::path::Path) -> Result<Value, Failure> {
    let bytes = files::read_bundle(path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::refused(
            policy::Reason::WrongPredicate,
            format!("{} is not JSON: {error}", path.display()),
        )
    })
}

fn sbom_type(sbom: &Value) -> Option<&'static str> {
    let is = |key: &str| sbom.get(key).is_some_and(Value::is_string);
    if sbom["bomFormat"] == json!("CycloneDX") {
        Some(media::CYCLONEDX_PREDICATE)
    } else if is("spdxVersion")
        || sbom["@context"]
            .as_str()
            .is_some_and(|c| c.contains("spdx.org"))
    {
        Some(media::SPDX_PREDICATE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_two_forms_of_sboms() {
        for (sbom, want) in [
            (
                json!({"bomFormat": "CycloneDX"}),
                Some(media::CYCLONEDX_PREDICATE),
            ),
            (
                json!({"spdxVersion": "SPDX-2.3"}),
                Some(media::SPDX_PREDICATE),
            ),
            (
                json!({"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}),
                Some(media::SPDX_PREDICATE),
            ),
            (json!({"bomFormat": "other"}), None),
            (json!([]), None),
        ] {
            assert_eq!(sbom_type(&sbom), want, "{sbom}");
        }
    }
}
