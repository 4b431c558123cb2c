//! `bpfseal policy schema`.

use crate::{Failure, Output};

/// The schema is JSON with and without `--json`.
pub fn run() -> Result<(), Failure> {
    let output = Output::new(true);
    output.result(&policy::schema::policy(), String::new);
    Ok(())
}
