//! The settings of devices and kernels.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{ConfigError, words};

/// The kernels that networks are built of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelSet {
    Packed,
    Reference,
}

impl<'de> Deserialize<'de> for KernelSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words::one_of(deserializer, &[("packed", KernelSet::Packed), ("reference", KernelSet::Reference)])
    }
}

/// The name of a device: `cpu`, or `cpu:0` and `cpu:0-7` for some cores only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// The cores of the device; `None` means all cores.
    pub cores: Option<RangeInclusive<usize>>,
}

impl DeviceName {
    fn parse(text: &str) -> Result<DeviceName, String> {
        let wrong = |text: &str| format!("must be cpu, or cores of it such as cpu:0 or cpu:0-7, not {text:?}");
        if ["cuda", "metal"].contains(&text.split(':').next().unwrap_or_default()) {
            return Err(format!("this build computes on the processor alone, {text:?} must be cpu or cores of it"));
        }
        let Some(cores) = text.strip_prefix("cpu") else { return Err(wrong(text)) };
        if cores.is_empty() {
            return Ok(DeviceName { cores: None });
        }
        let number = |digits: &str| digits.parse::<usize>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        let cores = cores.strip_prefix(':').and_then(|cores| match cores.split_once('-') {
            Some((first, last)) => Some((number(first)?, number(last)?)),
            None => number(cores).map(|core| (core, core)),
        });
        match cores {
            Some((first, last)) if first <= last => Ok(DeviceName { cores: Some(first..=last) }),
            Some((first, last)) => {
                Err(format!("the cores {first}-{last} of {text:?} must begin with the lower number"))
            }
            None => Err(wrong(text)),
        }
    }

    /// Whether the devices share a core. A device of all cores shares cores with every other device.
    fn overlaps(&self, other: &DeviceName) -> bool {
        match (&self.cores, &other.cores) {
            (Some(cores), Some(others)) => cores.start() <= others.end() && others.start() <= cores.end(),
            _ => true,
        }
    }
}

/// Checks the list of devices.
///
/// # Errors
/// The list is empty, or two devices have a core in common.
pub(super) fn check(devices: &[DeviceName]) -> Result<(), ConfigError> {
    if devices.is_empty() {
        return ConfigError::bound("engine.devices", "must name at least one device, such as cpu");
    }
    for (i, device) in devices.iter().enumerate() {
        if let Some(other) = devices[..i].iter().find(|other| other.overlaps(device)) {
            let detail = format!("\"{other}\" and \"{device}\" have cores in common; each core belongs to one device");
            return ConfigError::bound("engine.devices", &detail);
        }
    }
    Ok(())
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cores {
            None => f.write_str("cpu"),
            Some(cores) if cores.start() == cores.end() => write!(f, "cpu:{}", cores.start()),
            Some(cores) => write!(f, "cpu:{}-{}", cores.start(), cores.end()),
        }
    }
}

impl Serialize for DeviceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DeviceName::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (text, cores) in [("cpu", None), ("cpu:3", Some(3..=3)), ("cpu:0-7", Some(0..=7))] {
            let device = DeviceName::parse(text).unwrap();
            assert_eq!((device.to_string(), device.cores), (text.to_owned(), cores));
        }
        for (text, said) in [
            ("CPU", "must be cpu"),
            ("cpu:", "must be cpu"),
            ("cpu:+1", "must be cpu"),
            ("cpu:0-", "must be cpu"),
            ("cpu0", "must be cpu"),
            ("gpu", "must be cpu"),
            ("cpu:7-0", "lower number"),
            ("cuda:0", "processor alone"),
        ] {
            let error = DeviceName::parse(text).unwrap_err();
            assert!(error.contains(said) && error.contains(&text[..3]), "{text}: {error}");
        }
    }

    #[test]
    fn a_core_belongs_to_one_device() {
        let check =
            |names: &[&str]| check(&names.iter().map(|name| DeviceName::parse(name).unwrap()).collect::<Vec<_>>());
        for sound in [&["cpu"][..], &["cpu:0", "cpu:1"], &["cpu:4-7", "cpu:0-3"]] {
            check(sound).unwrap();
        }
        for (names, said) in [
            (&[][..], "at least one"),
            (&["cpu", "cpu"], "in common"),
            (&["cpu:1", "cpu"], "\"cpu:1\" and \"cpu\""),
            (&["cpu:0-3", "cpu:4", "cpu:3-5"], "\"cpu:0-3\" and \"cpu:3-5\""),
        ] {
            let error = check(names).unwrap_err().to_string();
            assert!(error.starts_with("engine.devices: ") && error.contains(said), "{names:?}: {error}");
        }
    }
}
