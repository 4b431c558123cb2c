//! Who signed a bundle, and by which entries of the policy each of them is trusted.

use std::collections::{BTreeMap, BTreeSet};

use bundle::Digest;
use serde::Serialize;

use crate::{Policy, Reason, Refusal, rule::Rule, sigstore::Identity};

/// One of the rule's signers that signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignedBy {
    /// Its names in the policy, sorted; more than one where several entries trust it.
    pub names: Vec<String>,
    /// Who it is, whatever its names: SHA-256 of a key's SPKI, or of what a certificate
    /// says about its holder.
    pub key: Digest,
    /// The certificate's identity or subject; `None`: a key.
    #[serde(flatten)]
    pub identity: Option<Identity>,
}

/// Everybody with a valid signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    policy: Option<Digest>,
    signers: BTreeMap<Digest, Signer>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Signer {
    identity: Option<Identity>,
    names: BTreeSet<String>,
}

impl Signers {
    /// Nobody yet; names are those of `policy`.
    pub(crate) fn by(policy: &Policy) -> Self {
        Self {
            policy: Some(policy.digest()),
            signers: BTreeMap::new(),
        }
    }

    /// As if everybody whom `policy` names had signed.
    pub(crate) fn everybody(policy: &Policy) -> Self {
        let mut signers = Self::by(policy);
        for (name, _) in policy.trusted() {
            let name = name.to_owned();
            let id = match policy.keys().get(&name) {
                Some(trusted) => trusted.key.id(),
                // Who that will be is known when they sign; each name stands for one.
                None => Digest::of(format!("anybody\0{name}").as_bytes()),
            };
            signers.add(id, None, [&name]);
        }
        signers
    }

    /// Adds a signer that these entries of the policy trust.
    pub(crate) fn add<'n>(
        &mut self,
        id: Digest,
        identity: Option<&Identity>,
        names: impl IntoIterator<Item = &'n String>,
    ) {
        let signer = self.signers.entry(id).or_default();
        signer.identity = identity.cloned();
        signer.names.extend(names.into_iter().cloned());
    }

    /// Did nobody sign?
    pub fn is_empty(&self) -> bool {
        self.signers.is_empty()
    }

    /// Each signer's id.
    pub fn ids(&self) -> impl Iterator<Item = Digest> {
        self.signers.keys().copied()
    }

    /// The names by which `policy` trusts each signer. A key is known by itself. Who is
    /// known by a certificate was judged by one policy, and only that policy's names count.
    fn names(&self, policy: &Policy) -> BTreeMap<Digest, BTreeSet<String>> {
        let mut by_id: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for (name, trusted) in policy.keys() {
            let id = trusted.key.id();
            if self.signers.contains_key(&id) {
                by_id.entry(id).or_default().insert(name.clone());
            }
        }
        if self.policy == Some(policy.digest()) {
            for (id, signer) in &self.signers {
                let names = signer.names.iter().cloned();
                by_id.entry(*id).or_default().extend(names);
            }
        }
        by_id
    }

    /// The rule's signers that signed, each once whatever its names.
    ///
    /// A threshold of two wants two entries of the rule and two signers: one signer whom two
    /// entries trust counts once, and so do two signers whom one entry (a pattern) trusts.
    pub(crate) fn check(&self, policy: &Policy, rule: &Rule) -> Result<Vec<SignedBy>, Refusal> {
        let all = self.names(policy);
        let of = &rule.signed_by.of;
        let found: BTreeMap<Digest, Vec<usize>> = all
            .iter()
            .map(|(id, names)| {
                let entries = of.iter().enumerate();
                let entries = entries.filter(|(_, name)| names.contains(*name));
                (*id, entries.map(|(index, _)| index).collect::<Vec<_>>())
            })
            .filter(|(_, entries)| !entries.is_empty())
            .collect();
        let names = |entries: &[usize]| -> Vec<String> {
            let mut names: Vec<String> = entries.iter().map(|&index| of[index].clone()).collect();
            names.sort();
            names
        };
        let entries: Vec<&[usize]> = found.values().map(Vec::as_slice).collect();
        if pairs(&entries) < rule.signed_by.at_least {
            let others = all
                .iter()
                .filter(|(id, _)| !found.contains_key(id))
                .flat_map(|(_, names)| names.iter().map(String::as_str));
            let got: Vec<String> = found.values().map(|e| names(e).join("=")).collect();
            return Err(too_few(rule, &got, &others.collect::<Vec<_>>()));
        }
        let signed_by = found.iter().map(|(id, entries)| SignedBy {
            names: names(entries),
            key: *id,
            identity: self.signers.get(id).and_then(|s| s.identity.clone()),
        });
        Ok(signed_by.collect())
    }
}

/// Keys alone, as a policy would find them: for tests of decisions.
#[cfg(test)]
impl From<BTreeSet<Digest>> for Signers {
    fn from(ids: BTreeSet<Digest>) -> Self {
        Self {
            policy: None,
            signers: ids.into_iter().map(|id| (id, Signer::default())).collect(),
        }
    }
}

/// The most pairs of a signer and an entry that trusts it, nobody in two pairs (a maximum
/// matching, by augmenting paths). `trusted` has the entries of each signer.
pub(crate) fn pairs<T: Ord>(trusted: &[&[T]]) -> usize {
    fn place<'t, T: Ord>(
        signer: usize,
        trusted: &[&'t [T]],
        owner: &mut BTreeMap<&'t T, usize>,
        seen: &mut BTreeSet<&'t T>,
    ) -> bool {
        for entry in trusted[signer] {
            if !seen.insert(entry) {
                continue;
            }
            let other = owner.get(entry).copied();
            if other.is_none_or(|other| place(other, trusted, owner, seen)) {
                owner.insert(entry, signer);
                return true;
            }
        }
        false
    }
    let mut owner = BTreeMap::new();
    (0..trusted.len())
        .filter(|&signer| place(signer, trusted, &mut owner, &mut BTreeSet::new()))
        .count()
}

fn too_few(rule: &Rule, got: &[String], others: &[&str]) -> Refusal {
    Refusal::new(
        Reason::Threshold,
        format!(
            "want {} distinct {} of {}; got {}{}",
            rule.signed_by.at_least,
            if rule.signed_by.at_least == 1 {
                "signer"
            } else {
                "signers"
            },
            rule.signed_by.of.join(", "),
            if got.is_empty() {
                "none".to_owned()
            } else {
                got.join(", ")
            },
            if others.is_empty() {
                String::new()
            } else {
                format!(
                    " (signed by {}, whom the rule does not name)",
                    others.join(", ")
                )
            },
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_one_signer_and_one_entry() {
        for (found, want) in [
            (vec![], 0),
            // One signer, two names.
            (vec![vec![0, 1]], 1),
            // Two signers whom one pattern trusts.
            (vec![vec![0], vec![0]], 1),
            // The first has to give way for the second.
            (vec![vec![0, 1], vec![0]], 2),
            (vec![vec![0, 1], vec![0, 1], vec![0, 1]], 2),
            (vec![vec![1], vec![0, 1], vec![0, 2]], 3),
        ] {
            let entries: Vec<&[usize]> = found.iter().map(Vec::as_slice).collect();
            assert_eq!(pairs(&entries), want, "{found:?}");
        }
    }
}
