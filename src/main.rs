//! The command line of latentd.

mod cli;

use std::process::ExitCode;

use latentd::kernels::arena::Allocator;

/// Activations come from an arena and go back to it; everything else is the system allocator's.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latentd: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// One line with every cause, as people and logs read it; no backtrace for a mistyped setting. An error that says its cause
/// itself is not followed by it.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("no such file").context("cannot read a: no such file").context("settings");
        assert_eq!(super::told(&error), "settings: cannot read a: no such file");
        assert_eq!(super::told(&anyhow!("c").context("b").context("settings")), "settings: b: c");
    }
}
