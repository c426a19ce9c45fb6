//! The entry point of the latentd program: runs the command line and prints its error.

mod cli;

use std::process::ExitCode;

use latentd::kernels::arena::Allocator;

/// Returns freed activations to the arena of the kernels. All other memory comes from the system allocator.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latentd: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one line, without a backtrace. A cause that the line contains already is not repeated.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("no such file").context("cannot read a: no such file").context("settings");
        assert_eq!(super::one_line(&error), "settings: cannot read a: no such file");
        assert_eq!(super::one_line(&anyhow!("c").context("b").context("settings")), "settings: b: c");
    }
}
