//! Installs the packages that the clients come from below `target/clients`, once for each list of packages.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// The folder of the scripts and of the lists of packages.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The folder of everything that these tests write.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients")
}

/// A Python with the packages of `tests/clients/{list}.txt`; `None` if they cannot be installed.
pub fn python(list: &str) -> Option<PathBuf> {
    static LOCK: [Mutex<()>; 4] = [const { Mutex::new(()) }; 4];
    let at = ["clients", "frameworks", "provenance", "schemathesis"]
        .iter()
        .position(|name| *name == list)
        .expect("a known list");
    let packages = sources().join(list).with_extension("txt");
    let folder = target().join(list);
    let python = folder.join("bin/python");
    let install = |folder: &Path| {
        call(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
            "--only-binary=:all:",
        ]);
        call(pip.arg("--requirement").arg(&packages))
    };
    let installed = installed(&LOCK[at], &folder, &[&packages], "python3", install);
    installed.then_some(python)
}

/// A folder with the packages of `tests/clients/package.json` in `node_modules`; `None` if they cannot be installed.
pub fn node() -> Option<PathBuf> {
    static LOCK: Mutex<()> = Mutex::new(());
    let files = ["package.json", "package-lock.json"].map(|name| sources().join(name));
    let folder = target().join("node");
    let install = |folder: &Path| {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        for file in &files {
            fs::copy(file, folder.join(file.file_name().expect("a file"))).map_err(|error| error.to_string())?;
        }
        call(Command::new("npm").args(["ci", "--silent", "--no-fund", "--no-audit"]).current_dir(folder))
    };
    installed(&LOCK, &folder, &[&files[0], &files[1]], "node", install).then_some(folder)
}

/// Installs into an empty folder, unless the folder already has what these lists name for this version of the program.
/// Otherwise panics if LATENTD_REQUIRE_CLIENTS is set, and says that the test is skipped if it is not.
fn installed(
    lock: &Mutex<()>,
    folder: &Path,
    lists: &[&Path],
    program: &str,
    install: impl Fn(&Path) -> Result<(), String>,
) -> bool {
    let _guard = lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let done = folder.join("installed");
    let result = version(program).and_then(|version| {
        let wanted = lists.iter().fold(version, |text, list| text + &fs::read_to_string(list).unwrap());
        if fs::read_to_string(&done).is_ok_and(|present| present == wanted) {
            return Ok(());
        }
        let _ = fs::remove_dir_all(folder);
        install(folder)?;
        fs::write(&done, wanted).map_err(|error| error.to_string())
    });
    let Err(error) = result else { return true };
    let required = std::env::var_os("LATENTD_REQUIRE_CLIENTS").is_some();
    assert!(!required, "LATENTD_REQUIRE_CLIENTS is set, but the clients cannot be installed: {error}");
    println!("skipped: the clients of {} cannot be installed: {error}", folder.display());
    false
}

fn version(program: &str) -> Result<String, String> {
    let output = Command::new(program).arg("--version").output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command to its end.
fn call(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = format!("{program} ends with {}", output.status);
    for stream in [output.stdout, output.stderr] {
        let _ = write!(text, "\n{}", String::from_utf8_lossy(&stream));
    }
    Err(text)
}
