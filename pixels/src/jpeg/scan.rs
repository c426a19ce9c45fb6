//! Checks that the scans of a JPEG contain every pixel.

use std::collections::HashMap;

use super::{START_OF_SCAN, segments};

/// Whether the data of each scan reaches the scan's last block, and whether the scans of a progressive picture give
/// every coefficient with all its bits. The decoder fills missing blocks with gray without an error, and missing
/// coefficients with zeros. The data of scans that refine AC coefficients is not checked, and neither are files that
/// the decoder rejects anyway.
pub(crate) fn has_all_pixels(file: &[u8]) -> bool {
    let (mut frame, mut tables, mut restart_interval) = (None, Tables::default(), 0);
    let mut coverage = Coverage::default();
    for segment in segments(file) {
        match segment.marker {
            0xc0..=0xc2 => frame = Frame::read(segment.data, segment.marker == 0xc2),
            0xc4 => tables.read(segment.data),
            0xdd => {
                restart_interval = segment.data.first_chunk().map_or(0, |units| u64::from(u16::from_be_bytes(*units)))
            }
            START_OF_SCAN => {
                coverage.add(segment.data);
                let scan = frame.as_ref().and_then(|frame| Scan::read(segment.data, frame, &tables, restart_interval));
                if scan.is_some_and(|scan| scan.go_through(Bits::of(segment.behind)).is_none()) {
                    return false;
                }
            }
            _ => {}
        }
    }
    frame.is_none_or(|frame| !frame.is_progressive || coverage.is_whole(&frame))
}

/// How many low bits of each coefficient the scans have left out so far, by component and coefficient; `None` before
/// the first scan with the coefficient.
#[derive(Default)]
struct Coverage(HashMap<u8, [Option<u8>; 64]>);

impl Coverage {
    /// Adds the scan with this header. A scan that refines coefficients counts only after the scan that it refines.
    fn add(&mut self, data: &[u8]) {
        let Some((count, rest)) = data.split_first() else { return };
        let Some((parts, [from, to, bits, ..])) = rest.split_at_checked(2 * usize::from(*count)) else { return };
        let refined = Some(bits >> 4).filter(|refined| *refined > 0);
        for part in parts.chunks_exact(2) {
            let left_out = self.0.entry(part[0]).or_insert([None; 64]);
            let range = left_out.get_mut(usize::from(*from)..=usize::from(*to)).unwrap_or_default();
            range.iter_mut().filter(|left_out| **left_out == refined).for_each(|left_out| *left_out = Some(bits & 15));
        }
    }

    /// Whether every coefficient of every component is there with all its bits.
    fn is_whole(&self, frame: &Frame) -> bool {
        let is_whole = |part: &Component| self.0.get(&part.id).is_some_and(|bits| bits.iter().all(|b| *b == Some(0)));
        frame.components.iter().all(is_whole)
    }
}

/// The header of a picture with Huffman codes, SOF0 to SOF2.
struct Frame {
    is_progressive: bool,
    /// Width in pixels.
    width: u64,
    /// Height in pixels.
    height: u64,
    components: Vec<Component>,
}

/// A component of the picture, such as brightness or a color difference.
struct Component {
    id: u8,
    /// Horizontal and vertical sampling factors, 1 to 4.
    across: u64,
    down: u64,
}

impl Frame {
    fn read(data: &[u8], is_progressive: bool) -> Option<Frame> {
        let [_precision, height @ .., width_high, width_low, count] = data.first_chunk::<6>()?;
        let components: Vec<Component> = data[6..]
            .chunks_exact(3)
            .take(usize::from(*count))
            .map(|part| Component { id: part[0], across: u64::from(part[1] >> 4), down: u64::from(part[1] & 15) })
            .collect();
        let known = components.iter().all(|part| (1..=4).contains(&part.across) && (1..=4).contains(&part.down));
        let frame = Frame {
            is_progressive,
            width: u64::from(u16::from_be_bytes([*width_high, *width_low])),
            height: u64::from(u16::from_be_bytes(*height)),
            components,
        };
        (known && (1..=4).contains(&frame.components.len())).then_some(frame)
    }

    /// The number of blocks of 8 × 8 samples of one component.
    fn blocks(&self, part: &Component) -> u64 {
        let (most_across, most_down) = self.most();
        let across = (self.width * part.across).div_ceil(most_across).div_ceil(8);
        across * (self.height * part.down).div_ceil(most_down).div_ceil(8)
    }

    /// The number of units (MCUs) in a scan of all components. A unit has some blocks of each component.
    fn units(&self) -> u64 {
        let (most_across, most_down) = self.most();
        self.width.div_ceil(8 * most_across) * self.height.div_ceil(8 * most_down)
    }

    /// The largest sampling factors, horizontal and vertical.
    fn most(&self) -> (u64, u64) {
        let most = |samples: fn(&Component) -> u64| self.components.iter().map(samples).max().unwrap_or(1);
        (most(|part| part.across), most(|part| part.down))
    }
}

/// Huffman codes by class (DC, AC) and number, as last defined.
#[derive(Default)]
struct Tables<'a>([[Option<Codes<'a>>; 4]; 2]);

/// Huffman codes: the number of codes of each length from 1 to 16 bits, and the values of the codes.
#[derive(Clone, Copy)]
struct Codes<'a> {
    counts: &'a [u8; 16],
    values: &'a [u8],
}

impl<'a> Tables<'a> {
    fn read(&mut self, mut data: &'a [u8]) {
        while let [place, rest @ ..] = data
            && let Some((counts, rest)) = rest.split_first_chunk::<16>()
            && let Some((values, rest)) = rest.split_at_checked(counts.iter().map(|count| usize::from(*count)).sum())
        {
            let table =
                self.0.get_mut(usize::from(place >> 4)).and_then(|class| class.get_mut(usize::from(place & 15)));
            if let Some(table) = table {
                *table = Some(Codes { counts, values });
            }
            data = rest;
        }
    }
}

/// The layout of the data of one scan.
struct Scan<'a> {
    kind: Kind,
    /// The number of units in the scan.
    units: u64,
    /// Number of units between two restart markers; 0 if the scan has no restart markers.
    restart_interval: u64,
    /// The DC and AC codes of each block of a unit.
    blocks: Vec<[Option<Codes<'a>>; 2]>,
}

/// Which coefficients a scan has, and whether it gives their first bits or refines them by one more bit.
enum Kind {
    Sequential,
    FirstDc,
    FirstAc { from: usize, to: usize },
    MoreDc,
}

impl<'a> Scan<'a> {
    /// `None` for a scan that is not checked.
    fn read(data: &[u8], frame: &Frame, tables: &Tables<'a>, restart_interval: u64) -> Option<Scan<'a>> {
        let (count, rest) = data.split_first()?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(*count))?;
        let [from, to, bits, ..] = *rest else { return None };
        let kind = match (frame.is_progressive, from, bits >> 4) {
            (false, ..) => Kind::Sequential,
            (true, 0, 0) => Kind::FirstDc,
            (true, 0, _) => Kind::MoreDc,
            (true, _, 0) if from <= to && to < 64 => Kind::FirstAc { from: usize::from(from), to: usize::from(to) },
            (true, ..) => return None,
        };
        let (mut blocks, mut units) = (Vec::new(), frame.units());
        for part in parts.chunks_exact(2) {
            let component = frame.components.iter().find(|component| component.id == part[0])?;
            let [dc, ac] = [(0, part[1] >> 4), (1, part[1] & 15)]
                .map(|(class, number)| tables.0[class].get(usize::from(number)).copied().flatten());
            let of_unit = if *count == 1 { 1 } else { component.across * component.down };
            blocks.extend(std::iter::repeat_n([dc, ac], of_unit as usize));
            if *count == 1 {
                units = frame.blocks(component);
            }
        }
        let is_known = |[dc, ac]: &[Option<Codes>; 2]| match kind {
            Kind::Sequential => dc.is_some() && ac.is_some(),
            Kind::FirstDc => dc.is_some(),
            Kind::FirstAc { .. } => ac.is_some(),
            Kind::MoreDc => true,
        };
        // A scan without blocks has no data to check.
        let can_be_read = !blocks.is_empty() && blocks.iter().all(is_known);
        can_be_read.then_some(Scan { kind, units, restart_interval, blocks })
    }

    /// Reads every block. `None` if the data ends too early or contains an undefined code.
    fn go_through(&self, mut bits: Bits) -> Option<()> {
        let (mut unit, mut until_restart) = (0, self.restart_interval);
        while unit < self.units {
            if self.restart_interval > 0 && until_restart == 0 {
                bits.restart()?;
                until_restart = self.restart_interval;
            }
            let mut done = 1;
            for [dc, ac] in &self.blocks {
                match self.kind {
                    Kind::Sequential => {
                        bits.coefficient((*dc)?)?;
                        bits.coefficients((*ac)?, 1, 63)?;
                    }
                    Kind::FirstDc => bits.coefficient((*dc)?)?,
                    Kind::FirstAc { from, to } => done += bits.coefficients((*ac)?, from, to)?,
                    Kind::MoreDc => bits.skip(1)?,
                }
            }
            if self.restart_interval > 0 {
                done = done.min(until_restart);
                until_restart -= done;
            }
            unit += done;
        }
        Some(())
    }
}

/// The bits of the data of a scan, up to the next marker.
struct Bits<'a> {
    rest: &'a [u8],
    /// The current byte; its last `left` bits are not read yet.
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    fn of(rest: &'a [u8]) -> Bits<'a> {
        Bits { rest, byte: 0, left: 0 }
    }

    fn bit(&mut self) -> Option<usize> {
        if self.left == 0 {
            let length = match self.rest {
                [0xff, 0x00, ..] => 2,
                [0xff, ..] | [] => return None,
                _ => 1,
            };
            (self.byte, self.left) = (self.rest[0], 8);
            self.rest = &self.rest[length..];
        }
        self.left -= 1;
        Some(usize::from(self.byte >> self.left & 1))
    }

    fn skip(&mut self, bits: u8) -> Option<()> {
        (0..bits).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// The value of the next code.
    fn value(&mut self, codes: Codes) -> Option<u8> {
        let (mut code, mut first, mut at) = (0, 0, 0);
        for count in codes.counts {
            code |= self.bit()?;
            let count = usize::from(*count);
            if code < first + count {
                return codes.values.get(at + code.checked_sub(first)?).copied();
            }
            at += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }

    /// Reads one DC coefficient: the number of its bits, then these bits.
    fn coefficient(&mut self, codes: Codes) -> Option<()> {
        let bits = self.value(codes)?;
        self.skip(bits)
    }

    /// Reads the AC coefficients at the positions `from` to `to` of one block. Returns the number of following blocks
    /// without coefficients (0 in a sequential scan, whose codes do not count such blocks).
    fn coefficients(&mut self, codes: Codes, from: usize, to: usize) -> Option<u64> {
        let mut at = from;
        while at <= to {
            let value = self.value(codes)?;
            match (value >> 4, value & 15) {
                (15, 0) => at += 16,
                (run, 0) => {
                    let more = (0..run).try_fold(0, |more, _| Some(more << 1 | self.bit()? as u64))?;
                    return Some((1 << run) - 1 + more);
                }
                (zeros, bits) => {
                    self.skip(bits)?;
                    at += usize::from(zeros) + 1;
                }
            }
        }
        Some(0)
    }

    /// Skips to the data after the next marker, which must be a restart marker.
    fn restart(&mut self) -> Option<()> {
        self.left = 0;
        loop {
            let at = self.rest.iter().position(|byte| *byte == 0xff)?;
            match self.rest[at + 1..] {
                [0xd0..=0xd7, ..] => {
                    self.rest = &self.rest[at + 2..];
                    return Some(());
                }
                // Remaining data, or a fill byte.
                [0x00 | 0xff, ..] => self.rest = &self.rest[at + 1..],
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by Pillow: 40 × 24 pixels, 4:2:0, a restart marker after each unit; one file with one scan, and one
    /// progressive file.
    const RESTARTED: [&[u8]; 2] = [
        include_bytes!("../../../tests/fixtures/inputs/restarts.jpg"),
        include_bytes!("../../../tests/fixtures/inputs/progressive-restarts.jpg"),
    ];

    #[test]
    fn restart_markers_are_part_of_the_data() {
        for file in RESTARTED {
            assert!(has_all_pixels(file));
            let restart = file.windows(2).rposition(|pair| matches!(pair, [0xff, 0xd0..=0xd7])).unwrap();
            let scan = file.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            let first = scan + file[scan..].windows(2).position(|pair| matches!(pair, [0xff, 0xd0..=0xd7])).unwrap();
            assert!(!has_all_pixels(&[&file[..first], b"\xff\xd9"].concat()), "cut at a restart");
            assert!(has_all_pixels(&[&file[..restart], b"\x00\x00", &file[restart..]].concat()), "bytes left over");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(at in 0usize..1000, bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            for file in RESTARTED {
                let mut file = file.to_vec();
                let at = at % (file.len() - bytes.len());
                file[at..at + bytes.len()].copy_from_slice(&bytes);
                has_all_pixels(&file);
            }
        }
    }
}
