use candle_core::{
    Device,
    quantized::{GgmlDType, QStorage, QTensor},
};
use proptest::prelude::*;
use std::borrow::Cow;

use super::*;

const QUANTIZED: [(Format, GgmlDType); 10] = [
    (Format::Q4_0, GgmlDType::Q4_0),
    (Format::Q4_1, GgmlDType::Q4_1),
    (Format::Q5_0, GgmlDType::Q5_0),
    (Format::Q5_1, GgmlDType::Q5_1),
    (Format::Q8_0, GgmlDType::Q8_0),
    (Format::Q2K, GgmlDType::Q2K),
    (Format::Q3K, GgmlDType::Q3K),
    (Format::Q4K, GgmlDType::Q4K),
    (Format::Q5K, GgmlDType::Q5K),
    (Format::Q6K, GgmlDType::Q6K),
];

fn bits(values: &[f32]) -> Vec<u32> {
    // All patterns that are no number count as equal.
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// The numbers that candle reads from these bytes.
fn by_candle(dtype: GgmlDType, bytes: &[u8], numbers: usize) -> Vec<f32> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype).unwrap();
    QTensor::new(storage, numbers).unwrap().dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn quantized_blocks_are_what_candle_reads(at in 0..QUANTIZED.len(), bytes in prop::collection::vec(any::<u8>(), 420)) {
        let (format, dtype) = QUANTIZED[at];
        let (numbers, length) = format.block();
        prop_assert_eq!((numbers, length), (dtype.block_size(), dtype.type_size()));
        let blocks = bytes.len() / length;
        let bytes = &bytes[..blocks * length];
        let expected = by_candle(dtype, bytes, blocks * numbers);
        prop_assert_eq!(bits(&format.widened(bytes)), bits(&expected), "{:?}", format);
    }
}

#[test]
fn floats_are_widened_exactly() {
    for pattern in 0..=u16::MAX {
        let bytes = pattern.to_le_bytes();
        let of = |format: Format| bits(&format.widened(&bytes))[0];
        let [half, bfloat] = [half::f16::from_bits(pattern).to_f32(), half::bf16::from_bits(pattern).to_f32()];
        assert_eq!(of(Format::F16), bits(&[half])[0], "{pattern:#x}");
        assert_eq!(of(Format::Bf16), bits(&[bfloat])[0], "{pattern:#x}");
    }
    for byte in 0..=u8::MAX {
        let half = half::f16::from_le_bytes([0, byte]).to_f32();
        assert_eq!(bits(&Format::F8E5m2.widened(&[byte])), bits(&[half]), "{byte:#x}");
        let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
        let size = match (exponent, byte & 7) {
            (15, 7) => f32::NAN,
            (0, _) => mantissa / 512.0,
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
        };
        let value = if byte < 128 { size } else { -size };
        assert_eq!(bits(&Format::F8E4m3.widened(&[byte])), bits(&[value]), "{byte:#x}");
    }
    assert_eq!(Format::F64.widened(&0.1f64.to_le_bytes()), [0.1]);
    assert_eq!(Format::F32.widened(&0.1f32.to_le_bytes()), [0.1]);
}

#[test]
fn lanes_are_converted_like_single_numbers() {
    for (format, _) in QUANTIZED.into_iter().chain([(Format::F16, GgmlDType::F16), (Format::F8E4m3, GgmlDType::F16)]) {
        let (numbers, length) = format.block();
        let of_lane = |l: usize| -> Vec<u8> { (0..2 * length).map(|i| (i * 37 + l * 101 + i * i * l) as u8).collect() };
        let unit = format.unit();
        let at = |i: usize| of_lane(i / unit % 16)[i / unit / 16 * unit + i % unit];
        let bytes: Vec<[u8; 16]> = (0..2 * length).map(|i| std::array::from_fn(|l| at(16 * i + l))).collect();
        let mut values = vec![[0.0; 16]; 2 * numbers];
        format.widen_lanes(&bytes, &mut values);
        for l in 0..16 {
            let lane: Vec<f32> = values.iter().map(|values| values[l]).collect();
            assert_eq!(bits(&lane), bits(&format.widened(&of_lane(l))), "{format:?}, lane {l}");
        }
    }
}

#[test]
fn only_whole_blocks_have_a_length() {
    assert_eq!(Format::Q4K.bytes(512), Some(288));
    assert_eq!(Format::Q4K.bytes(100), None);
    assert_eq!(Format::F64.bytes(usize::MAX / 4), None);
    assert_eq!(Format::Bf16.bytes(3), Some(6));
}
