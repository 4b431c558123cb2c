//! What the policy crate says about documents of the authority, in the daemon's words.

use std::collections::BTreeSet;

use bundle::{Digest, kernel};
use policy::{
    document::VerifiedPolicy,
    generator::{Generator, PinnedFile},
    key::PublicKey,
    permit::SignedPermit,
    shape::Shape,
    vocabulary::{helper_number, helpers, program_type_number},
};

use crate::{
    failure::Failure,
    gate::{GeneratorRule, Mode, Pinned, ShapeRule},
    store::Document,
};

/// A policy that the authority signed, with the bytes that say so.
#[derive(Clone, Debug)]
pub struct Trusted {
    document: Document,
    authority: String,
    verified: VerifiedPolicy,
}

/// Reads the authority's public key.
pub fn authority(pem: &str) -> Result<PublicKey, Failure> {
    PublicKey::from_pem(pem.as_bytes())
        .map_err(|error| Failure::refused(error.reason(), format!("the authority's key: {error}")))
}

/// Verifies a permit's signature; whether it fits is still to be asked.
pub fn permit(text: &str, authority: &PublicKey) -> Result<SignedPermit, Failure> {
    Ok(SignedPermit::verify(text, authority)?)
}

impl Trusted {
    /// Verifies the authority's signature on a policy, then reads it.
    pub fn verify(document: &Document, authority: &PublicKey) -> Result<Self, Failure> {
        let verified = VerifiedPolicy::verify(&document.text, &document.signature, authority)?;
        Ok(Self {
            document: document.clone(),
            authority: authority.to_pem(),
            verified,
        })
    }

    /// As it was signed.
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// The authority's key, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// SHA-256 of its text.
    pub const fn digest(&self) -> Digest {
        self.verified.digest()
    }

    /// Its version.
    pub const fn version(&self) -> u64 {
        self.verified.version()
    }

    /// Refuses a version below the one in force.
    pub fn must_not_be_older(&self, in_force: u64) -> Result<(), Failure> {
        Ok(self.verified.check_not_older(in_force)?)
    }

    /// The policy.
    pub const fn policy(&self) -> &policy::Policy {
        self.verified.policy()
    }

    /// The mode it asks for.
    pub const fn mode(&self) -> Mode {
        match self.policy().mode() {
            policy::Mode::Enforce => Mode::Enforce,
            policy::Mode::Audit => Mode::Audit,
        }
    }

    /// Keyrings by which the kernel may verify loaders, by its numbers.
    pub fn keyrings(&self) -> BTreeSet<u32> {
        let keyrings = self.policy().kernel_keyrings().iter();
        keyrings.map(|trusted| trusted.keyring.number()).collect()
    }

    /// The policy's generators.
    pub fn generators(&self) -> Vec<GeneratorRule> {
        let generators = self.policy().generators().iter();
        generators.map(generator_rule).collect()
    }

    /// The policy's shapes, the built-in one included where it names none.
    pub fn shapes(&self) -> Vec<ShapeRule> {
        self.policy().shapes().iter().map(shape_rule).collect()
    }
}

fn generator_rule(generator: &Generator) -> GeneratorRule {
    let pinned = |file: &PinnedFile| Pinned {
        path: file.path.clone(),
        sha256: file.sha256.clone(),
        fsverity: file.fsverity.clone(),
        dmverity: file.dmverity.clone(),
    };
    let types = generator.program_types.iter();
    GeneratorRule {
        name: generator.name.clone(),
        exe: pinned(&generator.exe),
        libraries: generator.libraries.iter().map(pinned).collect(),
        prog_types: types.filter_map(|word| program_type_number(word)).collect(),
        helpers: helpers()
            .filter(|helper| !generator.forbid_calls.contains(*helper))
            .filter_map(helper_number)
            .collect(),
        map_types: generator
            .map_types
            .iter()
            .filter_map(|word| kernel::map_type(word))
            .collect(),
        max_maps: generator.maps,
        max_insns: generator.max_insns,
        cgroup: generator.cgroup.clone(),
        uid: generator.uid,
        permit: generator.permit,
    }
}

/// Words to the kernel's numbers; the policy reader let only known words through.
fn shape_rule(shape: &Shape) -> ShapeRule {
    ShapeRule {
        name: shape.name.clone(),
        prog_types: shape
            .program_types
            .iter()
            .filter_map(|word| program_type_number(word))
            .collect(),
        helpers: shape
            .calls
            .iter()
            .filter_map(|word| helper_number(word))
            .collect(),
        max_maps: shape.maps,
        max_insns: shape.max_insns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn shapes_become_numbers() {
        let text = "version = 1\n[[shape]]\nname = \"filters\"\nprogram_types = [\"cgroup_device\", \
                    \"socket_filter\"]\ncalls = [\"bpf_ktime_get_ns\"]\nmaps = 0\nmax_insns = 64\n";
        let trusted = Trusted::verify(
            &fake::signed(fake::authority(), text),
            &fake::authority().public,
        );
        let want = ShapeRule {
            name: "filters".to_owned(),
            prog_types: vec![15, 1],
            helpers: vec![5],
            max_maps: 0,
            max_insns: 64,
        };
        assert_eq!(trusted.unwrap().shapes(), [want]);
    }

    #[test]
    fn a_policy_without_shapes_has_device_filters() {
        let document = fake::policy(1, "enforce", "tool");
        let trusted = Trusted::verify(&document, &fake::authority().public).unwrap();
        let shapes = trusted.shapes();
        assert_eq!((shapes.len(), &shapes[0].prog_types[..]), (1, &[15][..]));
    }
}
