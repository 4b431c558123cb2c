//! `bpfseal-registry`: see the library, which is all of it.

fn main() -> std::process::ExitCode {
    bpfseal_registry::run()
}
