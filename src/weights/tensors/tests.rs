//! Tests of the conversion of numbers.

use super::*;

#[test]
fn small_floats_are_widened_exactly() {
    // Zero, the smallest, the smallest normal number, 1, -1, and the largest.
    let known = [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x08, 1.0 / 64.0), (0x38, 1.0), (0xb8, -1.0), (0x7e, 448.0)];
    for (byte, value) in known {
        assert_eq!(floats(&[byte], Dtype::F8_E4M3), Some(vec![value]), "{byte:#x}");
    }
    assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    assert_eq!((0..=255u8).filter(|byte| !e4m3(*byte).is_finite()).count(), 2);
    let known = [(0x00, 0.0), (0x01, 1.0 / 65536.0), (0x3c, 1.0), (0xbd, -1.25), (0x7b, 57344.0)];
    for (byte, value) in known {
        assert_eq!(floats(&[byte], Dtype::F8_E5M2), Some(vec![value]), "{byte:#x}");
    }
    assert_eq!(floats(&0.1f64.to_le_bytes(), Dtype::F64), Some(vec![0.1]));
    assert_eq!(floats(&[0; 8], Dtype::I64), None);
}
