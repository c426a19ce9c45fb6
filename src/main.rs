//! The command line of latentd.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with every cause, as people and logs read it; no backtrace for a mistyped setting.
            eprintln!("latentd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
