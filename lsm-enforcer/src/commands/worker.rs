//! The hidden command that the daemon starts for bytes that somebody else made.

use enforcer::{
    failure::Failure,
    worker::{self, Job},
};

/// Which work.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = job)]
    job: Job,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    worker::work(args.job)
}

fn job(word: &str) -> Result<Job, String> {
    match word {
        "verify" => Ok(Job::Verify),
        "measure" => Ok(Job::Measure),
        "explain" => Ok(Job::Explain),
        _ => Err("this command is the daemon's own".to_owned()),
    }
}
