//! Tests of processes that abort: the crash file names the attempt to blame.

use std::{
    path::Path,
    process::{Command, Output},
};

use latentd::{
    crash::{Attempt, CrashFile, blame},
    generation::GenerationId,
};
use serde_json::json;

use super::{EngineFixture, Fault, Scripted, outcome};

const ATTEMPT: Attempt = Attempt { id: GenerationId::from_bytes([7; 16]), fence: 3 };

/// How a child process of this test ends.
#[derive(Clone, Copy, Debug)]
enum End {
    StackOverflow,
    /// A thread that works for no attempt aborts while another thread works for one.
    Elsewhere,
    /// Another process sends SIGABRT.
    Outside,
}

const ENDS: [End; 3] = [End::StackOverflow, End::Elsewhere, End::Outside];

/// The test runs itself once for each end, as a child process.
#[test]
fn an_aborted_process_leaves_the_attempt_to_blame() {
    if let (Ok(folder), Ok(end)) = (std::env::var("CRASH_FOLDER"), std::env::var("CRASH_END")) {
        CrashFile::open(Path::new(&folder)).unwrap().arm().unwrap();
        crash(ENDS[end.parse::<usize>().unwrap()]);
    }
    for (index, end) in ENDS.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let output = run_again(folder.path(), index);
        assert!(aborted(&output), "{end:?}: {output:?}");
        let left = CrashFile::open(folder.path()).unwrap().attempts().unwrap();
        match end {
            End::StackOverflow => assert_eq!(left, [ATTEMPT]),
            End::Elsewhere | End::Outside => assert_eq!(left, [], "{end:?}"),
        }
    }
}

fn run_again(folder: &Path, end: usize) -> Output {
    let name = "crashes::an_aborted_process_leaves_the_attempt_to_blame";
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env("CRASH_FOLDER", folder)
        .env("CRASH_END", end.to_string())
        .output()
        .unwrap()
}

fn aborted(output: &Output) -> bool {
    const SIGABRT: i32 = 6;
    std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(SIGABRT)
}

fn crash(end: End) -> ! {
    match end {
        End::StackOverflow => {
            let fixture = EngineFixture::new(16, 1);
            fixture.attempt.set(Some(ATTEMPT));
            let job = fixture.job(json!({"model": "sd1", "prompt": "a fox", "steps": 2}));
            let (_, observed) = fixture.start_on(Scripted::model(Fault::StackOverflow).into(), job);
            let _ = outcome(&observed);
        }
        End::Elsewhere => blame(Some(ATTEMPT), || {
            let _ = std::thread::spawn(|| std::process::abort()).join();
        }),
        End::Outside => blame(Some(ATTEMPT), || {
            let mut kill = Command::new("kill").args(["-ABRT", &std::process::id().to_string()]).spawn().unwrap();
            kill.wait().unwrap();
            std::thread::sleep(std::time::Duration::from_secs(60));
        }),
    }
    unreachable!("the process has aborted")
}
