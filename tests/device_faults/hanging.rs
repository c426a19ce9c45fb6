//! A device that hangs: the watchdog aborts the process, and the next one continues its generations.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::Ordering::SeqCst,
};

use crate::{
    figures::Figures,
    process::Process,
    scripted_device::Scripted,
    site::{Site, expected, requests},
};

const SIGABRT: i32 = 6;

const FOLDER: &str = "DEVICE_FAULTS_FOLDER";
const DATABASE: &str = "DEVICE_FAULTS_DATABASE";

/// The test runs itself as a child process, whose device hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_device_hangs_is_replaced_and_loses_nothing() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        hang(Site::at(folder.into(), std::env::var(DATABASE).ok())).await;
    }
    let requests = requests(6);
    let expected = expected(&requests).await;
    for (store, site) in Site::each().await {
        let (folder, database) = (site.folder.clone(), site.database.clone());
        let output = tokio::task::spawn_blocking(move || run_again(folder, database)).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(SIGABRT), "{text}");
        let said = text.lines().find(|line| line.contains("the device hangs")).unwrap_or_else(|| panic!("{text}"));
        assert!(said.contains("scripted:0") && said.contains("engine.watchdog_s"), "{said}");

        let next = Process::start(&site, &[Scripted::new()]).await;
        let ids: Vec<String> =
            std::fs::read_to_string(site.folder.join("ids")).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(ids.len(), requests.len());
        let mut figures = Figures::default();
        let generations = figures.judge(&next, &ids, &expected).await;
        assert!(generations.iter().any(|generation| generation["attempt"].as_u64() > Some(1)), "they were interrupted");
        figures.note(format!("{} rows replayed", next.metric("latentd_replayed_steps_total", "").await));
        figures.verdict(&format!("a device that hangs, then a new process, {store}"));
        next.stop().await.unwrap();
    }
}

fn run_again(folder: PathBuf, database: Option<String>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "hanging::a_process_whose_device_hangs_is_replaced_and_loses_nothing";
    command.args([name, "--exact", "--nocapture"]).env(FOLDER, folder);
    if let Some(url) = database {
        command.env(DATABASE, url);
    }
    command.output().unwrap()
}

/// Serves with a device that hangs after some layers, until the watchdog ends this process.
async fn hang(site: Site) -> ! {
    let site = site.with("LATENTD_ENGINE__WATCHDOG_S", 1);
    latentd::telemetry::init(&site.config().log).unwrap();
    let script = Scripted::new();
    script.delay_us.store(5000, SeqCst);
    let process = Process::start(&site, std::slice::from_ref(&script)).await;
    let ids = process.accept_all(&requests(6)).await;
    std::fs::write(site.folder.join("ids"), ids.join("\n")).unwrap();
    script.hangs_at.store(script.layers.load(SeqCst) + 10, SeqCst);
    for id in &ids {
        process.ended(id).await;
    }
    panic!("the device does not hang");
}
