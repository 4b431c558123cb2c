//! The next build of the enforcer takes over from this one, and the gate stays.

use std::path::{Path, PathBuf};

use bundle::Digest;
use policy::Reason;
use serde::{Deserialize, Serialize};

use super::Enforcer;
use crate::{failure::Failure, record::Level, store::read_file};

/// Most bytes of an executable.
const MOST: u64 = 256 << 20;

/// What took the place of the enforcer's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Where it is now.
    pub path: PathBuf,
    /// SHA-256 of it.
    pub digest: Digest,
    /// Its gate keeps other things in its maps: it can begin with the next boot alone.
    pub at_boot: bool,
}

impl Enforcer {
    /// Puts `file` in the place of the enforcer's own, where the policy names it. `at_boot`: also one that
    /// cannot continue with the gate that is armed.
    pub fn upgrade(&mut self, file: &Path, at_boot: bool) -> Result<Upgraded, Failure> {
        self.settle()?;
        self.must_be_armed()?;
        let policy = self.must_have_policy()?;
        let content =
            read_file(file, MOST).map_err(|error| Failure::io("cannot read", file, error))?;
        let digest = Digest::of(&content);
        if !policy.policy().daemons().contains(&digest) {
            let detail = format!(
                "{digest} is not under [daemon] of the policy in force, version {}",
                policy.version()
            );
            return Err(Failure::refused(Reason::NextDaemon, detail));
        }
        let continues = self.gate().continues(&content);
        if !continues && !at_boot {
            let detail = "it keeps other things in the gate's maps, so it cannot continue with the gate that is armed";
            return Err(Failure::refused(Reason::NextDaemon, detail).with_remedy(
                "`upgrade --at-boot` puts it in place for the next boot; until then leave the daemon running.",
            ));
        }
        let path = PathBuf::from(self.host().executable().path);
        self.tools.gate.adopt(&path, &content)?;
        let line = format!("{digest} is the enforcer's file now");
        self.note(Level::Alarm, "daemon", line);
        Ok(Upgraded {
            path,
            digest,
            at_boot: !continues,
        })
    }
}
