//! `bpfseal verify`.

use std::path::{Path, PathBuf};

use bundle::{Digest, Layout, UnverifiedBundle, unverified::Referrer};
use jiff::Timestamp;
use policy::{
    Admitted, Context, Policy, Reason, Refusal, RuleRef, VerifiedBundle,
    decision::SignedBy,
    signature::{Finding, Outcome, Valid},
    verify::reason_of,
};
use serde::Serialize;

use crate::{
    Failure, Output, attested,
    output::counted,
    policy_file,
    reference::Reference,
    registry::Connection,
    source::{Opened, Source},
    trust,
};

/// Check who signed a bundle, and whether a policy allows it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal verify registry.example.com/net/xdp:v1 --policy policy.toml
  bpfseal verify xdp.tar --policy policy.toml --scope registry.example.com/net/xdp --explain
  bpfseal verify xdp.tar --key release.pub
  bpfseal verify xdp.tar --certificate-identity ann@acme.example \\
      --certificate-oidc-issuer https://accounts.google.com

Nothing is looked up anywhere: keys and rules are in the policy. A tag is resolved once;
what is printed is the digest that was verified.")]
#[command(group = clap::ArgGroup::new("trust").required(true))]
pub struct Args {
    /// A bundle file, or a reference: host[:port]/repository[:tag][@digest].
    #[arg(value_name = "BUNDLE|REFERENCE")]
    bundle: String,
    /// The policy that decides.
    #[arg(long, value_name = "FILE", group = "trust")]
    policy: Option<PathBuf>,
    /// Without a policy: this public key must have signed it, and no rule limits what the
    /// programs may do.
    #[arg(long, value_name = "FILE", group = "trust")]
    key: Option<PathBuf>,
    /// Without a policy: this identity must have signed it, byte for byte (keyless).
    #[arg(
        long,
        value_name = "IDENTITY",
        group = "trust",
        requires = "certificate_oidc_issuer"
    )]
    certificate_identity: Option<String>,
    /// Who must have vouched for that identity.
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    certificate_oidc_issuer: Option<String>,
    #[command(flatten)]
    root: trust::RootArgs,
    /// Decide about a file as if it came from there: host[:port]/repository. Else its
    /// package name is its scope.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Say what every signature came to.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A bundle that was verified, as `--json` shows it.
#[derive(Serialize)]
struct Done<'a> {
    verified: bool,
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyRef<'a>>,
    signed_by: &'a [SignedBy],
    objects: Vec<Object<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    attestations: Vec<Attestation<'a>>,
    evidence: &'a [Finding],
}

#[derive(Serialize)]
struct Attestation<'a> {
    predicate_type: &'a str,
    trusted_as: &'a [String],
    referrer: Digest,
    /// What it says, in words; of known types only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    says: Vec<String>,
}

#[derive(Serialize)]
struct PolicyRef<'a> {
    file: &'a Path,
    digest: Digest,
    rule: &'a RuleRef,
}

#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    digest: Digest,
    programs: usize,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let policy = read_policy(args)?;
    let (layout, origin) = open(args, output)?;
    let bundle = layout
        .bundle()
        .map_err(|error| Failure::refused(reason_of(&error), error.to_string()))?;
    let scope = match &origin {
        Some(reference) => reference.repository.to_string(),
        None => scope_of_file(args, &bundle),
    };
    let now = Timestamp::now();
    let trail = args.explain.then(|| Trail::of(&bundle, &policy, now));
    match decide(bundle, &policy, &scope, args.policy.is_none(), now) {
        Ok(verified) => {
            let done = Done::of(&verified, args, origin.as_ref());
            output.result(&done, || done.describe(args, trail.as_ref()));
            Ok(())
        }
        Err(refusal) => {
            let mut failure = failure(refusal, args);
            if let Some(trail) = trail {
                failure.details = trail.describe().lines().map(str::to_owned).collect();
            }
            Err(failure)
        }
    }
}

/// Verifies, and decides too if there is a policy: what a host would say is what is said
/// here.
fn decide(
    bundle: UnverifiedBundle,
    policy: &Policy,
    scope: &str,
    by_signer: bool,
    now: Timestamp,
) -> Result<VerifiedBundle, Refusal> {
    let verified = policy::verify(bundle, policy, scope, now)?;
    if by_signer {
        return Ok(verified);
    }
    policy::admit(verified, policy, &Context::of(scope)).map(Admitted::into_bundle)
}

/// The layout, and for a reference what it meant: its digest, resolved once.
fn open(args: &Args, output: &Output) -> Result<(Layout, Option<Reference>), Failure> {
    match Source::parse(&args.bundle)?.open(&args.connection, output)? {
        Opened::File { path, .. } => Err(Failure::refused(
            Reason::NotABundle,
            format!("{} is no bundle", path.display()),
        )
        .with_remedy("Pack and sign it first: `bpfseal enroll`.")),
        Opened::Layout { layout, .. } => Ok((layout, None)),
        Opened::Remote(remote) => {
            let repository = remote.reference.repository.to_string();
            if args.scope.is_some() {
                return Err(Failure::usage(format!(
                    "`--scope` is for files; the scope of a reference is its repository, {repository}"
                )));
            }
            let pinned = remote.reference.pinned(remote.digest);
            Ok((remote.layout, Some(pinned)))
        }
    }
}

/// Nobody vouches for the name yet, but whoever signs the bundle vouches for it too, and
/// the rule of that scope decides who may.
fn scope_of_file(args: &Args, bundle: &UnverifiedBundle) -> String {
    let name = bundle.recorded_inventory().name.as_deref();
    policy::scope::of_file(args.scope.as_deref(), name)
}

fn read_policy(args: &Args) -> Result<Policy, Failure> {
    if args.root.is_given() && args.certificate_identity.is_none() {
        return Err(Failure::usage(
            "`--trusted-root` and `--trust` go with `--certificate-identity`",
        )
        .with_remedy("A policy names its own roots: [keyless.NAME] trusted_root = \"FILE\"."));
    }
    match (&args.policy, &args.key) {
        (Some(path), _) => policy_file::read(path),
        (None, Some(path)) => {
            let pem = trust::public_key(path)?.to_pem();
            implied_policy("[keys.signer]\nfile = \"key\"\n", pem.into_bytes())
        }
        (None, None) => identity_policy(args),
    }
}

/// One rule for every scope that trusts one identity.
fn identity_policy(args: &Args) -> Result<Policy, Failure> {
    let (Some(identity), Some(issuer)) =
        (&args.certificate_identity, &args.certificate_oidc_issuer)
    else {
        return Err(Failure::usage(
            "give `--policy`, `--key`, or `--certificate-identity` with its issuer",
        ));
    };
    if identity.contains('*') {
        return Err(
            Failure::usage("an identity on the command line is compared byte for byte")
                .with_remedy("Patterns stand in policies: [keyless.NAME] identity = \"…/*\"."),
        );
    }
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!(
        "[keyless.signer]\nidentity = {}\nissuer = {}\n",
        quote(identity),
        quote(issuer)
    );
    let mut root = Vec::new();
    let place = args.root.place()?;
    if !matches!(place, trust::Place::Embedded) {
        // Read here, so that what is wrong with it is said about the file.
        args.root.root()?;
        root = place.json()?.into_bytes();
        text += "trusted_root = \"root\"\n";
    }
    implied_policy(&text, root)
}

/// One rule for every scope that trusts one signer.
fn implied_policy(signer: &str, file: Vec<u8>) -> Result<Policy, Failure> {
    let text = format!("{signer}{IMPLIED_RULE}");
    Policy::parse(&text, &|_| Ok(file.clone()))
        .map_err(|error| Failure::usage(format!("whom to trust: {error}")))
}

fn failure(refusal: Refusal, args: &Args) -> Failure {
    // The rule of an implied policy is in no file that a person could look at.
    let refusal = Refusal {
        rule: refusal.rule.filter(|_| args.policy.is_some()),
        ..refusal
    };
    Failure::refused(refusal.reason, refusal.to_string())
}

impl<'a> Done<'a> {
    fn of(verified: &'a VerifiedBundle, args: &'a Args, origin: Option<&Reference>) -> Self {
        let inventory = verified.inventory();
        Self {
            verified: true,
            digest: verified.digest(),
            reference: origin.map(ToString::to_string),
            scope: verified.scope(),
            policy: args.policy.as_deref().map(|file| PolicyRef {
                file,
                digest: verified.policy(),
                rule: verified.rule(),
            }),
            signed_by: verified.signed_by(),
            objects: inventory
                .objects
                .iter()
                .map(|object| Object {
                    name: &object.name,
                    digest: object.digest,
                    programs: object.programs.len(),
                })
                .collect(),
            name: inventory.name.as_deref(),
            version: inventory.version.as_deref(),
            attestations: verified
                .evidence()
                .iter()
                .filter_map(|finding| match &finding.outcome {
                    Outcome::Attested(valid) => {
                        let predicate_type = valid.predicate_type.as_deref()?;
                        let predicate = valid.predicate().unwrap_or_default();
                        Some(Attestation {
                            predicate_type,
                            trusted_as: &valid.trusted_as,
                            referrer: finding.referrer,
                            says: attested::gist(predicate_type, &predicate),
                        })
                    }
                    Outcome::Valid(_) | Outcome::Rejected(_) => None,
                })
                .collect(),
            evidence: verified.evidence(),
        }
    }

    fn describe(&self, args: &Args, trail: Option<&Trail>) -> String {
        let mut text = match &self.reference {
            Some(reference) => format!("verified {reference}\n"),
            None => format!("verified {}\n", self.digest),
        };
        if let Some(name) = self.name {
            text += &format!("  package   {name} {}\n", self.version.unwrap_or_default());
        }
        for signer in self.signed_by {
            let who = match (&args.key, &args.policy) {
                (Some(path), _) => path.display().to_string(),
                (None, Some(_)) => signer.names.join(" = "),
                (None, None) => "a certificate".to_owned(),
            };
            let as_whom = match &signer.identity {
                Some(identity) => identity.to_string(),
                None => signer.key.to_string(),
            };
            text += &format!("  signed by {who} ({as_whom})\n");
        }
        if let Some(policy) = &self.policy {
            text += &format!("  scope     {}\n", self.scope);
            text += &format!("  allowed   {} of {}\n", policy.rule, policy.file.display());
        }
        for object in &self.objects {
            text += &format!(
                "  object    {} ({}, {})\n",
                object.name,
                counted(object.programs, "program"),
                object.digest
            );
        }
        for attestation in &self.attestations {
            text += &format!(
                "  attested  {} by {}\n",
                attestation.predicate_type,
                attestation.trusted_as.join(" = ")
            );
            for line in &attestation.says {
                text += &format!("            {line}\n");
            }
        }
        if let Some(trail) = trail {
            text += &trail.describe();
        }
        crate::output::printable_lines(&text)
    }
}

/// Everything attached to a bundle and what came of it.
struct Trail {
    findings: Vec<Finding>,
    referrers: Vec<Referrer>,
}

impl Trail {
    fn of(bundle: &UnverifiedBundle, policy: &Policy, now: Timestamp) -> Self {
        Self {
            findings: policy::verify::evidence(bundle, policy, now),
            referrers: bundle.referrers().to_vec(),
        }
    }

    fn describe(&self) -> String {
        if self.referrers.is_empty() {
            return "nothing is attached to it\n".to_owned();
        }
        let mut text = String::new();
        for referrer in &self.referrers {
            text += &format!(
                "attached {}\n  type      {}\n",
                referrer.digest,
                referrer.manifest.kind()
            );
            let of_this = self
                .findings
                .iter()
                .filter(|f| f.referrer == referrer.digest);
            let mut any = false;
            for finding in of_this {
                any = true;
                text += &self.line(finding);
            }
            if !any {
                text += "  no signature\n";
            }
        }
        crate::output::printable_lines(&text)
    }

    fn line(&self, finding: &Finding) -> String {
        match &finding.outcome {
            Outcome::Valid(valid) => format!("  valid     {}", describe(valid)),
            Outcome::Attested(valid) => {
                let predicate = valid.predicate_type.as_deref().unwrap_or_default();
                format!("  attested  {predicate}\n            {}", describe(valid))
            }
            Outcome::Rejected(rejected) => format!(
                "  rejected  E{} {}: {}\n",
                rejected.reason.number(),
                rejected.reason.code(),
                rejected.detail
            ),
        }
    }
}

/// Who, how, when, by which trust: one line for each that there is.
fn describe(valid: &Valid) -> String {
    let mut text = format!(
        "by {} ({}, {})\n",
        valid.trusted_as.join(" = "),
        valid.algorithm,
        valid.key
    );
    let mut more = |what: &str, value: &dyn std::fmt::Display| {
        text += &format!("            {what} {value}\n");
    };
    if let Some(identity) = &valid.identity {
        more("identity", identity);
    }
    for time in &valid.times {
        more("time", time);
    }
    if valid.logged {
        more("log", &"inclusion proved");
    }
    if let Some(root) = &valid.trusted_root {
        more("root", root);
    }
    text
}

const IMPLIED_RULE: &str = r#"
[[rule]]
name = "the signer given"
scope = "*"
signed_by = { at_least = 1, of = ["signer"] }
"#;
