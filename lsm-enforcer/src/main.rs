//! `bpfseal-enforcer`: refuses BPF programs nobody signed.

mod commands;

use clap::Parser;
use command::Output;

/// Refuse BPF programs that nobody signed, in the kernel.
///
/// Where the daemon (`run`) is up, every other command talks to it; where it is not, the
/// command does the work itself. The gate is in the kernel either way and outlives both.
#[derive(Parser)]
#[command(
    name = "bpfseal-enforcer",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    /// Print JSON on standard output instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    places: commands::Places,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> std::process::ExitCode {
    if let Err(error) = enforcer::own_data::take() {
        eprintln!("bpfseal-enforcer: the memory of its variables cannot be made its own: {error}");
        return std::process::ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match cli.command.run(&cli.places, &output) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}
