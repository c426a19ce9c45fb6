//! Marks pictures and finds watermarks for `benches/watermark/table.py`: reads commands from the standard input and
//! writes answers to the standard output, so that one process serves many pictures.
//!
//! - `embed WIDTH HEIGHT BITS`, a line break and the pixels (3 · WIDTH · HEIGHT bytes) are answered by a line with the
//!   seconds that the mark took, and the marked pixels.
//! - `film WIDTH HEIGHT COUNT FORMAT`, a line break and the pixels of COUNT frames (7 per second) are answered by a
//!   line with the seconds that the encoding took and the number of bytes, and the file. The format is mp4 or gif.
//! - `detect WIDTH HEIGHT`, a line break and the pixels are answered by a line with the seconds and, if there is a
//!   watermark, its bits, the number of corrected bits, the score and the scale.

use std::{
    io::{self, BufRead, Read, Write},
    time::Instant,
};

use latentd_pixels::{
    RgbImage, encode_gif, encode_mp4,
    watermark::{self, Payload},
};

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let (Some(width), Some(height)) = (number(1), number(2)) else {
            return Err(io::Error::other(format!("not a command: {line}")));
        };
        let (width, height) = (width as u32, height as u32);
        let mut read = || {
            let mut pixels = vec![0; 3 * (width * height) as usize];
            input.read_exact(&mut pixels).map(|()| RgbImage { width, height, pixels })
        };
        if words[0] == "film" {
            let frames = (0..number(3).unwrap_or(0)).map(|_| read()).collect::<io::Result<Vec<_>>>()?;
            let encode = if words.get(4) == Some(&"gif") { encode_gif } else { encode_mp4 };
            let start = Instant::now();
            let file = encode(&frames, 7, None).map_err(io::Error::other)?;
            writeln!(output, "{} {}", start.elapsed().as_secs_f64(), file.len())?;
            output.write_all(&file)?;
            output.flush()?;
            line.clear();
            continue;
        }
        let mut picture = read()?;
        let start = Instant::now();
        match (words[0], number(3)) {
            ("embed", Some(bits)) => {
                watermark::embed(&mut picture, Payload::from_bits(bits));
                writeln!(output, "{}", start.elapsed().as_secs_f64())?;
                output.write_all(&picture.pixels)?;
            }
            ("detect", None) => {
                let found = watermark::detect(&picture);
                write!(output, "{}", start.elapsed().as_secs_f64())?;
                if let Some(found) = found {
                    let bits = found.payload.bits();
                    write!(output, " {bits} {} {} {}", found.corrected, found.score, found.scale)?;
                }
                writeln!(output)?;
            }
            _ => return Err(io::Error::other(format!("not a command: {line}"))),
        }
        output.flush()?;
        line.clear();
    }
    Ok(())
}
