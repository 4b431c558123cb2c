//! One file per subcommand; each has an `Args` and a `run`.

use clap::Subcommand;

use crate::{Failure, Output};

mod attest;
mod completions;
mod copy;
mod enroll;
mod explain;
mod inspect;
mod keygen;
mod login;
mod logout;
mod man;
mod pack;
mod permit;
mod policy;
mod probes;
mod pull;
mod push;
mod revoke;
mod sign;
mod sign_blob;
mod signed_list;
mod trust;
pub mod verify;
pub mod verify_blob;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Sign a statement about a bundle: provenance, an SBOM, the inventory, anything.
    Attest(Box<attest::Args>),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Copy an artifact and everything that refers to it between registries.
    Copy(copy::Args),
    /// Extract, pack, sign and publish in one step what nobody signs.
    Enroll(enroll::Args),
    /// Say what a reason means and what to do.
    Explain(explain::Args),
    /// Show what a BPF object, a bundle or an executable contains, read from its bytes.
    Inspect(inspect::Args),
    /// Make a key pair.
    Keygen(keygen::Args),
    /// Check a password with a registry and remember it.
    Login(login::Args),
    /// Forget the password of a registry.
    Logout(logout::Args),
    /// Write the manual pages into a folder.
    Man(man::Args),
    /// Pack BPF objects into a bundle.
    Pack(pack::Args),
    /// Allow one action on one host for a while, signed by the authority.
    Permit(permit::Args),
    /// Check, show, compare and sign policy files.
    Policy(policy::Args),
    /// Sign a list of loaders' probe programs, for hosts.
    Probes(probes::Args),
    /// Fetch a bundle and its signatures from a registry.
    Pull(pull::Args),
    /// Send a bundle and its signatures to a registry.
    Push(push::Args),
    /// Sign a revocation list with the authority's key, for hosts.
    Revoke(revoke::Args),
    /// Sign a bundle, in a file or in a registry.
    Sign(sign::Args),
    /// Sign any file; the signature is a Sigstore bundle.
    SignBlob(sign_blob::Args),
    /// Show, store and update what keyless signatures are checked against.
    Trust(trust::Args),
    /// Check who signed a bundle and whether a policy allows it.
    Verify(verify::Args),
    /// Check the signature of any file, offline.
    VerifyBlob(verify_blob::Args),
}

impl Command {
    /// Runs the command; the text or JSON it prints goes through `output`.
    pub fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Attest(args) => attest::run(&args, output),
            Self::Completions(args) => completions::run(&args),
            Self::Copy(args) => copy::run(&args, output),
            Self::Enroll(args) => enroll::run(&args, output),
            Self::Explain(args) => explain::run(&args, output),
            Self::Inspect(args) => inspect::run(&args, output),
            Self::Keygen(args) => keygen::run(&args, output),
            Self::Login(args) => login::run(&args, output),
            Self::Logout(args) => logout::run(&args, output),
            Self::Man(args) => man::run(&args, output),
            Self::Pack(args) => pack::run(&args, output),
            Self::Permit(args) => permit::run(&args, output),
            Self::Policy(args) => policy::run(&args, output),
            Self::Probes(args) => probes::run(&args, output),
            Self::Pull(args) => pull::run(&args, output),
            Self::Push(args) => push::run(&args, output),
            Self::Revoke(args) => revoke::run(&args, output),
            Self::Sign(args) => sign::run(&args, output),
            Self::SignBlob(args) => sign_blob::run(&args, output),
            Self::Trust(args) => trust::run(&args, output),
            Self::Verify(args) => verify::run(&args, output),
            Self::VerifyBlob(args) => verify_blob::run(&args, output),
        }
    }
}
