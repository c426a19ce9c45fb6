//! Tests of the keys that sign pictures.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::app::tests::config;

#[test]
fn a_server_makes_its_keys_once_and_nobody_else_can_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    assert!(provenance(&config).unwrap().signs());
    let file = folder.path().join("provenance.pem");
    let made = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(provenance(&config).unwrap().signs());
    assert_eq!(fs::read_to_string(&file).unwrap(), made, "a later start uses the same keys");
}

#[test]
fn the_data_folder_is_needed_until_it_has_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let needs = |more: &[(&str, &str)]| keys_need_data_dir(&config(folder.path(), more));
    assert!(needs(&[]), "the start makes the keys");
    assert!(!needs(&[("provenance.credentials", "false")]), "nothing is signed");
    assert!(!needs(&[("provenance.certificate", "c.pem"), ("provenance.private_key", "k.pem")]), "other keys");
    provenance(&config(folder.path(), &[])).unwrap();
    assert!(!needs(&[]), "the keys are there");
    let file = folder.path().join("provenance.pem");
    assert!(keys_need_data_dir(&config(&file, &[])), "the folder is a file");
}

#[test]
fn a_command_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    assert!(provenance_beside(&config, true).unwrap().signs());
    assert!(!provenance_beside(&config, false).unwrap().signs());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn unusable_keys_are_refused_at_the_start_without_quoting_them() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |more: &[(&str, &str)]| format!("{:#}", provenance(&config(folder.path(), more)).unwrap_err());
    let missing = [("provenance.certificate", "/nowhere.pem"), ("provenance.private_key", "swordfish")];
    assert!(refusal(&missing).contains("provenance.certificate"), "{}", refusal(&missing));
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    let swapped = [("provenance.certificate", pem), ("provenance.private_key", pem)];
    let said = refusal(&swapped);
    assert!(said.contains("provenance.certificate") && said.contains("PKCS#8"), "{said}");
    assert!(!said.contains("AAAA"), "{said}");
}
