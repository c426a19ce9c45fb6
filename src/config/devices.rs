//! The settings of devices and kernels.

use std::{fmt, mem::discriminant, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{ConfigError, words};

/// The set of kernels with which networks compute.
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

/// The numbers with which networks compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The best precision for each device.
    Auto,
    F32,
    F16,
    Bf16,
}

impl<'de> Deserialize<'de> for Precision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names =
            [("auto", Precision::Auto), ("f32", Precision::F32), ("f16", Precision::F16), ("bf16", Precision::Bf16)];
        words::one_of(deserializer, &names)
    }
}

/// An entry of the list of devices: `cpu`, `cpu:0` or `cpu:0-7` for some cores only, `cuda:0`, `metal`, or `auto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// All GPUs that the build supports and the machine has; without GPUs, the CPU.
    Auto,
    /// The CPU. `None` means all cores.
    Cpu { cores: Option<RangeInclusive<usize>> },
    /// The NVIDIA GPU with this number, in the order in which NVIDIA's driver lists the GPUs.
    Cuda { index: usize },
    /// Apple's GPU.
    Metal,
}

impl DeviceName {
    fn parse(text: &str) -> Result<DeviceName, String> {
        let wrong = || format!("must be auto, cpu, cores such as cpu:0 or cpu:0-7, cuda:0 or metal, not {text:?}");
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceName::Auto),
            None if text == "metal" => Ok(DeviceName::Metal),
            None if text == "cpu" => Ok(DeviceName::Cpu { cores: None }),
            None if text == "cuda" => Err(format!("{text:?} needs the number of a GPU, such as cuda:0, or use auto")),
            Some(("cuda", index)) => Ok(DeviceName::Cuda { index: number(index).ok_or_else(wrong)? }),
            Some(("cpu", cores)) => {
                let cores = match cores.split_once('-') {
                    Some((first, last)) => number(first).zip(number(last)),
                    None => number(cores).map(|core| (core, core)),
                };
                match cores.ok_or_else(wrong)? {
                    (first, last) if first <= last => Ok(DeviceName::Cpu { cores: Some(first..=last) }),
                    (first, last) => {
                        Err(format!("the cores {first}-{last} of {text:?} must begin with the lower number"))
                    }
                }
            }
            _ => Err(wrong()),
        }
    }

    /// Whether both names mean the same GPU or share a core. A device of all cores shares cores with every other CPU
    /// device.
    fn overlaps(&self, other: &DeviceName) -> bool {
        match (self, other) {
            (DeviceName::Cpu { cores: Some(cores) }, DeviceName::Cpu { cores: Some(others) }) => {
                cores.start() <= others.end() && others.start() <= cores.end()
            }
            (DeviceName::Cpu { .. }, DeviceName::Cpu { .. }) => true,
            _ => self == other,
        }
    }
}

/// A decimal number without a sign.
fn number(digits: &str) -> Option<usize> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Checks the list of devices.
///
/// # Errors
/// The list is empty, `auto` is not alone, the devices are of different kinds, or two devices are the same GPU or have
/// a core in common.
pub(super) fn check(devices: &[DeviceName]) -> Result<(), ConfigError> {
    let wrong = |detail: &str| ConfigError::bound("engine.devices", detail);
    let Some(first) = devices.first() else { return wrong("must name at least one device, such as cpu") };
    if devices.len() > 1 && devices.contains(&DeviceName::Auto) {
        return wrong("auto means all GPUs, or the CPU if there are none, so it must be the only entry");
    }
    if let Some(other) = devices.iter().find(|device| discriminant(*device) != discriminant(first)) {
        return wrong(&format!("\"{first}\" and \"{other}\" are of different kinds; a process computes on one kind"));
    }
    for (i, device) in devices.iter().enumerate() {
        if let Some(other) = devices[..i].iter().find(|other| other.overlaps(device)) {
            return wrong(&match device {
                DeviceName::Cpu { .. } => {
                    format!("\"{other}\" and \"{device}\" have cores in common; each core belongs to one device")
                }
                _ => format!("\"{device}\" occurs twice"),
            });
        }
    }
    Ok(())
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Cpu { cores: None } => f.write_str("cpu"),
            DeviceName::Cpu { cores: Some(cores) } if cores.start() == cores.end() => {
                write!(f, "cpu:{}", cores.start())
            }
            DeviceName::Cpu { cores: Some(cores) } => write!(f, "cpu:{}-{}", cores.start(), cores.end()),
            DeviceName::Cuda { index } => write!(f, "cuda:{index}"),
            DeviceName::Metal => f.write_str("metal"),
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
        for (text, named) in [
            ("auto", DeviceName::Auto),
            ("cpu", DeviceName::Cpu { cores: None }),
            ("cpu:3", DeviceName::Cpu { cores: Some(3..=3) }),
            ("cpu:0-7", DeviceName::Cpu { cores: Some(0..=7) }),
            ("cuda:0", DeviceName::Cuda { index: 0 }),
            ("cuda:12", DeviceName::Cuda { index: 12 }),
            ("metal", DeviceName::Metal),
        ] {
            let device = DeviceName::parse(text).unwrap();
            assert_eq!((device.to_string().as_str(), &device), (text, &named));
        }
        for (text, said) in [
            ("CPU", "must be auto, cpu"),
            ("cpu:", "must be auto, cpu"),
            ("cpu:+1", "must be auto, cpu"),
            ("cpu:0-", "must be auto, cpu"),
            ("cpu0", "must be auto, cpu"),
            ("gpu", "must be auto, cpu"),
            ("cuda:", "must be auto, cpu"),
            ("cuda:-1", "must be auto, cpu"),
            ("cuda:0-1", "must be auto, cpu"),
            ("metal:0", "must be auto, cpu"),
            ("auto:0", "must be auto, cpu"),
            ("", "must be auto, cpu"),
            ("cuda", "the number of a GPU"),
            ("cpu:7-0", "lower number"),
        ] {
            let error = DeviceName::parse(text).unwrap_err();
            assert!(error.contains(said) && error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_precision_has_a_name() {
        for (text, precision) in
            [("auto", Precision::Auto), ("f32", Precision::F32), ("f16", Precision::F16), ("bf16", Precision::Bf16)]
        {
            let text = serde_json::Value::from(text);
            assert_eq!(serde_json::from_value::<Precision>(text.clone()).unwrap(), precision);
            assert_eq!(serde_json::to_value(precision).unwrap(), text);
        }
        let error = serde_json::from_value::<Precision>("fp16".into()).unwrap_err().to_string();
        assert!(error.contains("must be auto, f32, f16 or bf16, not \"fp16\""), "{error}");
    }

    #[test]
    fn a_list_has_devices_of_one_kind_and_each_core_and_gpu_once() {
        let check =
            |names: &[&str]| check(&names.iter().map(|name| DeviceName::parse(name).unwrap()).collect::<Vec<_>>());
        for sound in
            [&["cpu"][..], &["cpu:0", "cpu:1"], &["cpu:4-7", "cpu:0-3"], &["auto"], &["cuda:1", "cuda:0"], &["metal"]]
        {
            check(sound).unwrap();
        }
        for (names, said) in [
            (&[][..], "at least one"),
            (&["cpu", "cpu"], "in common"),
            (&["cpu:1", "cpu"], "\"cpu:1\" and \"cpu\""),
            (&["cpu:0-3", "cpu:4", "cpu:3-5"], "\"cpu:0-3\" and \"cpu:3-5\""),
            (&["cuda:1", "cuda:0", "cuda:1"], "\"cuda:1\" occurs twice"),
            (&["metal", "metal"], "\"metal\" occurs twice"),
            (&["cuda:0", "cpu"], "\"cuda:0\" and \"cpu\" are of different kinds"),
            (&["auto", "cuda:0"], "the only entry"),
            (&["auto", "auto"], "the only entry"),
        ] {
            let error = check(names).unwrap_err().to_string();
            assert!(error.starts_with("engine.devices: ") && error.contains(said), "{names:?}: {error}");
        }
    }
}
