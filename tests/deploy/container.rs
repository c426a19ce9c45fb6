//! The contract between the program and its container, without Docker: an unprivileged user, a read-only root, no home
//! folder, and the shared objects that the image has.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use reqwest::StatusCode;
use serde_json::json;

use crate::server::{Launch, Server, decode};

const LATENTD: &str = env!("CARGO_BIN_EXE_latentd");

/// The user of the image.
const USER: u32 = 65532;

/// The arguments are the data folder, the program, and the program's arguments after a path that is replaced.
/// Everything below / and /tmp except for the data folder becomes read-only for this process, which loses all rights of
/// root.
const CONTAINER: &str = r#"
set -e
mount -o remount,bind,ro /
mount --bind /tmp /tmp
mount -o remount,bind,ro /tmp
mount --bind "$1" "$1"
mount -o remount,bind,rw "$1"
cd "$1"
program=$2
shift 3
exec setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    env -u HOME -u TMPDIR -u USER "$program" "$@"
"#;

/// The command before the program; `None` if this machine does not let the test make mounts.
fn wrapper(data: &Path, program: &Path) -> Option<Vec<String>> {
    let words = ["unshare", "--mount", "--propagation", "private"];
    let works = Command::new(words[0]).args(&words[1..]).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("skipped: only root may make the mounts of a container");
        return None;
    }
    let script = ["sh", "-c", CONTAINER, "container"].map(str::to_owned);
    let paths = [data, program].map(|path| path.to_str().unwrap().to_owned());
    Some(words.map(str::to_owned).into_iter().chain(script).chain(paths).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_as_an_unprivileged_user_with_a_read_only_root_and_no_home() {
    let folder = tempfile::Builder::new().prefix("latentd-container-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The folder of the build may be closed to other users.
    let (data, program) = (folder.path().join("data"), folder.path().join("latentd"));
    fs::create_dir(&data).unwrap();
    fs::copy(LATENTD, &program).unwrap();
    let Some(wrapper) = wrapper(&data, &program) else { return };
    chown(&data, Some(USER), Some(USER)).unwrap();
    let mut launch = Launch::on(&data);
    launch.wrapper = wrapper.clone();
    let server = Server::start_ready(&launch).await;

    let of_process = |file: &str| fs::read(format!("/proc/{}/{file}", server.pid())).unwrap();
    let status = String::from_utf8(of_process("status")).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line("Uid:"), format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"));
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(line(set).split_whitespace().last(), Some("0000000000000000"), "{set}");
    }
    let environment = of_process("environ");
    let names: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    assert!(names.iter().any(|name| name.starts_with(b"LATENTD_DATA_DIR=")), "the environment can be read");
    assert!(!names.iter().any(|name| name.starts_with(b"HOME=")), "there is no home folder");
    let mounts = String::from_utf8(of_process("mountinfo")).unwrap();
    let options = |point: &str| {
        let last = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
        last.and_then(|line| line.split(' ').nth(5)).unwrap_or_default().to_owned()
    };
    assert!(options("/").starts_with("ro") && options("/tmp").starts_with("ro"), "{mounts}");

    let id = server.accept(&json!({"prompt": "a red fox", "steps": 2, "width": 64, "height": 64})).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    decode(&server.picture(&id, 0).await);
    assert_eq!(server.get_operator("/readyz").await.status(), StatusCode::OK);

    // The health check of the image runs in the same container, as a program of its own.
    let address = server.operator.strip_prefix("http://").unwrap();
    let mut check = Command::new(&wrapper[0]);
    check.args(&wrapper[1..]).args(["-", "healthcheck"]).env("LATENTD_OPERATOR__BIND", address);
    let check = check.output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert!(server.stopped().await.success());
}

/// The image has the libraries of glibc and GCC only. A new library must be added to the Dockerfile.
#[test]
fn it_needs_only_shared_objects_that_the_image_has() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    let output = Command::new("ldd").arg(LATENTD).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let path = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let mut names: Vec<String> =
        text.lines().filter_map(path).map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    // The kernel and the program itself bring these.
    names.retain(|name| !name.starts_with("linux-vdso") && !name.starts_with("ld-linux"));
    names.sort();
    assert_eq!(names, ["libc.so.6", "libgcc_s.so.1", "libm.so.6"], "{text}");
}
